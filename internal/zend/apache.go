package zend

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// mod_php has Apache's request in the server's context: php_struct of
// sapi/apache2handler/php_apache.h, 5.3 to 8.5, { int state; request_rec *r; … }.
// The beginning of request_rec (httpd.h) is the same in all of 2.4. Rewriting
// replaces its URI and leaves the line that the client has sent.
const (
	apacheRequest = 8

	recLine, recTime, recMethod = 48, 88, 112
	recSize                     = 120
)

// apache reads what the client asked for and when. That it is a request_rec shows
// in its method: the engine has the very same pointer.
func (th *Thread) apache(r remote.Reader) (uri string, start time.Time, err error) {
	if th.rt.SAPI != "apache2handler" {
		return "", time.Time{}, fmt.Errorf("%w: no request of Apache", ErrNoFact)
	}
	fail := func(err error) (string, time.Time, error) {
		return "", time.Time{}, fmt.Errorf("request of Apache: %w", err)
	}
	context, err := remote.Pointer(r, th.sg+sgContext)
	if err != nil {
		return fail(err)
	}
	if context == 0 || context%8 != 0 {
		return fail(ErrNoFact)
	}
	at, err := remote.Pointer(r, context+apacheRequest)
	if err != nil {
		return fail(err)
	}
	method, err := remote.Pointer(r, th.sg+remote.Addr(th.rt.Layout.SGMethod))
	if err != nil {
		return fail(err)
	}
	var b [recSize]byte
	if err := remote.ReadFull(r, b[:], at); err != nil {
		return fail(err)
	}
	word := func(off int) uint64 { return binary.LittleEndian.Uint64(b[off:]) }
	micro := int64(word(recTime))
	if method == 0 || remote.Addr(word(recMethod)) != method || micro < 1e15 || micro > 1e17 {
		return fail(ErrLayout)
	}
	name, err := remote.CString(r, method, maxURI)
	if err != nil {
		return fail(err)
	}
	line, err := remote.CString(r, remote.Addr(word(recLine)), maxURI)
	if err != nil && line == "" {
		return fail(err)
	}
	// GET /path?query HTTP/1.1
	if rest, ok := strings.CutPrefix(line, name+" "); ok {
		uri, _, _ = strings.Cut(rest, " ")
	}
	return uri, time.UnixMicro(micro), nil
}
