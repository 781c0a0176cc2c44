package testphp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// The record types of the FastCGI specification 1.0, section 8, that a
// responder and its client exchange.
const (
	fcgiBegin  = 1
	fcgiEnd    = 3
	fcgiParams = 4
	fcgiStdin  = 5
	fcgiStdout = 6
	fcgiStderr = 7
)

// fcgiMaxResponse bounds what is read while waiting for a text.
const fcgiMaxResponse = 1 << 20

// Request asks a php-fpm for a script and returns what it has printed up to and
// with its line "ready", whatever the error. query is the part of the URI
// after "?".
func Request(rw io.ReadWriter, script, query string) (string, error) {
	if err := fcgiRequest(rw, requestParams(script, query)); err != nil {
		return "", err
	}
	return fcgiReadUntil(rw, "\nready\n")
}

// fcgiRequest sends one request without a body.
func fcgiRequest(w io.Writer, params [][2]string) error {
	if err := fcgiBeginRequest(w, params); err != nil {
		return err
	}
	_, err := w.Write([]byte{1, fcgiStdin, 0, 1, 0, 0, 0, 0})
	return err
}

// fcgiBeginRequest sends what precedes a request's body.
func fcgiBeginRequest(w io.Writer, params [][2]string) error {
	var p []byte
	for _, kv := range params {
		for _, s := range kv {
			// The four-byte form, marked by its high bit, fits any length.
			p = binary.BigEndian.AppendUint32(p, uint32(len(s))|1<<31)
		}
		p = append(p, kv[0]...)
		p = append(p, kv[1]...)
	}
	var out []byte
	for _, r := range []struct {
		kind byte
		body []byte
	}{
		{fcgiBegin, []byte{0, 1 /* responder */, 0, 0, 0, 0, 0, 0}},
		{fcgiParams, p}, {fcgiParams, nil},
	} {
		if len(r.body) > 0xffff {
			return fmt.Errorf("a FastCGI record of %d bytes is too long", len(r.body))
		}
		out = append(out, 1, r.kind, 0, 1, byte(len(r.body)>>8), byte(len(r.body)), 0, 0)
		out = append(out, r.body...)
	}
	_, err := w.Write(out)
	return err
}

// fcgiReadUntil reads a response until its output ends with text, and returns
// all of the output so far, whatever the error.
func fcgiReadUntil(r io.Reader, text string) (string, error) {
	var out, errs strings.Builder
	for out.Len() < fcgiMaxResponse {
		var h [8]byte
		if _, err := io.ReadFull(r, h[:]); err != nil {
			return out.String(), err
		}
		body := make([]byte, int(binary.BigEndian.Uint16(h[4:]))+int(h[6]))
		if _, err := io.ReadFull(r, body); err != nil {
			return out.String(), err
		}
		body = body[:len(body)-int(h[6])]
		switch h[1] {
		case fcgiStdout:
			out.Write(body)
		case fcgiStderr:
			errs.Write(body)
		case fcgiEnd:
			return out.String(), errors.New("the request has ended; " + errs.String())
		}
		if strings.HasSuffix(out.String(), text) {
			return out.String(), nil
		}
	}
	return out.String(), fmt.Errorf("no %q in %d bytes", text, out.Len())
}
