package zend

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"time"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// Glimpse is the little of a request that tells since when it is in progress:
// one short read, for whoever looks at many workers again and again.
type Glimpse struct {
	Start time.Time // zero when neither PHP nor Apache has noted it
	Web   bool      // a web request: it has a method or a URI
	// Mark is made from where the request's parts are: another mark is another
	// request. The same one may be, too.
	Mark uint64
}

// Glimpse reads it, or returns ErrNoRequest.
func (th *Thread) Glimpse(r remote.Reader) (Glimpse, error) {
	if th.sg == 0 {
		return Glimpse{}, fmt.Errorf("%w: no symbol sapi_globals", ErrNoFact)
	}
	l := th.rt.Layout
	size := uint64(0)
	parts := []uint64{sgContext, l.SGMethod, l.SGURI, l.SGQuery, l.SGScript}
	for _, end := range append(parts, l.SGStarted, l.SGTime) {
		size = max(size, end+8)
	}
	if size > maxGlimpse {
		return Glimpse{}, fmt.Errorf("%w: sapi_globals has %d bytes", ErrLayout, size)
	}
	b := make([]byte, size)
	if err := remote.ReadFull(r, b, th.sg); err != nil {
		return Glimpse{}, fmt.Errorf("request: %w", err)
	}
	if b[l.SGStarted] == 0 {
		return Glimpse{}, ErrNoRequest
	}
	word := func(off uint64) uint64 { return binary.LittleEndian.Uint64(b[off:]) }
	mark := fnv.New64a()
	for _, off := range parts {
		_, _ = mark.Write(b[off : off+8])
	}
	g := Glimpse{Start: requestTime(word(l.SGTime)), Web: word(l.SGMethod) != 0 || word(l.SGURI) != 0, Mark: mark.Sum64()}
	if _, asked, err := th.apache(r); err == nil {
		g.Start = asked
	}
	return g, nil
}

// maxGlimpse bounds what is read of sapi_globals in bytes; it has some 650.
const maxGlimpse = 4096

// requestTime is SG(global_request_time), zero when that is no time.
func requestTime(bits uint64) time.Time {
	if t := math.Float64frombits(bits); t > 1e9 && t < 1e11 {
		return time.UnixMicro(int64(t * 1e6))
	}
	return time.Time{}
}
