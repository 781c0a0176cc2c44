package observe

import (
	"github.com/phpwhy/phpwhy/internal/target"
	"github.com/phpwhy/phpwhy/internal/zend"
	"github.com/phpwhy/phpwhy/symbolize"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// A fiber runs on a C stack of its own. The frames of whoever resumed it, down
// to the process's main function, are on another one, which is copied and
// walked as well: a person sees one stack, as PHP does.

// fiberBottom is how close to the end of its stack a fiber's first frame is,
// in bytes.
const fiberBottom = 512

// copyFibers records the stacks of those that wait for the running fiber.
func (s *session) copyFibers(snap *target.Snapshot, th *zend.Thread, limit int) {
	for _, f := range th.Fibers(snap) {
		snap.CopyStackAt(f.Resumer, s.image().Mappings(), limit)
	}
}

// resumers goes on with a walk that has reached the bottom of a fiber's stack.
// r reads what the snapshot holds.
func (s *session) resumers(w symbolize.Walk, snap *target.Snapshot, r remote.Reader) symbolize.Walk {
	rt := s.runtime()
	if rt == nil {
		return w
	}
	th, err := rt.Thread(r, snap.Regs.TLS)
	if err != nil {
		return w
	}
	img := s.image()
	isCode := func(pc remote.Addr) bool {
		m, ok := img.ModuleAt(pc)
		return ok && m.Start == s.php.Start
	}
	for _, f := range th.Fibers(r) {
		if len(w.Frames) == 0 {
			return w
		}
		sp := w.Frames[len(w.Frames)-1].Regs.SP()
		if left, ok := f.High.Distance(sp); !ok || left > fiberBottom {
			return w
		}
		regs, ok := zend.SavedRegs(r, f.Resumer, isCode)
		if !ok {
			return w
		}
		outer := img.Resume(regs, r)
		w.Frames = append(w.Frames, outer.Frames...)
		w.End, w.Err = outer.End, outer.Err
	}
	return w
}
