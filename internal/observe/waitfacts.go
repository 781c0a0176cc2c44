package observe

import (
	"fmt"

	"github.com/phpwhy/phpwhy/internal/proc"
)

// note says what the longest wait is for, empty when no peer is known.
func (w *waitTracker) note() string {
	of := w.longest
	if of == nil || of.fd == nil || of.fd.Peer == "" {
		return ""
	}
	s := fmt.Sprintf("the worker waits in %s() for %s %s", of.call.Name(), of.fd.Kind, of.fd.Peer)
	if of.fd.State != "" {
		s += " (" + of.fd.State + ")"
	}
	if d, ok := of.quiet(); ok && of.peers == 1 {
		s += fmt.Sprintf("; the connection has carried nothing for %.1f s", d.Seconds())
	}
	return s
}

// called is what people call a file descriptor: its peer where it has one.
func called(fd *proc.FD) string {
	switch {
	case fd.Peer != "":
		return fd.Peer
	case fd.Path != "":
		return fd.Path
	case fd.Local != "":
		return fd.Kind + " " + fd.Local
	}
	return fd.Kind
}

// into adds the facts.
func (w *waitTracker) into(m map[string]any, several bool) {
	of := w.longest
	if of == nil {
		// Without a wait that lasted there is none: that is known, too.
		if several {
			m["wait.lasting_s"], m["wait.for_s"] = 0.0, 0.0
		}
		return
	}
	m["proc.syscall"], m["wait.syscall"] = int64(of.call.Number), of.call.Name()
	quiet, known := of.quiet()
	if several {
		m["wait.lasting_s"] = of.lasting.Seconds()
	}
	// Whoever waits for one peer has waited since that last said something, or was
	// told something.
	switch {
	case known && of.peers == 1:
		m["wait.for_s"] = max(quiet, of.lasting).Seconds()
	case several:
		m["wait.for_s"] = of.lasting.Seconds()
	}
	switch {
	case of.limited:
		m["wait.timeout_s"] = of.timeout.Seconds()
	case of.noLimit:
		m["wait.timeout_s"] = -1.0
	}
	if of.fds != nil {
		m["wait.fds"] = int64(len(of.fds))
	}
	fd := of.fd
	if fd == nil {
		return
	}
	m["wait.fd"], m["fd.kind"], m["wait.on"] = int64(fd.Number), fd.Kind, called(fd)
	for name, v := range map[string]string{"fd.path": fd.Path, "fd.local": fd.Local, "fd.peer": fd.Peer, "fd.state": fd.State} {
		if v != "" {
			m[name] = v
		}
	}
	if fd.QueuesKnown {
		m["fd.recv_queue"], m["fd.send_queue"] = int64(fd.RecvQueue), int64(fd.SendQueue)
	}
	if known {
		m["fd.quiet_s"] = quiet.Seconds()
	}
}
