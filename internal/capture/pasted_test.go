package capture

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/phpwhy/phpwhy/rules"
)

func TestPastedStacksSurviveBecomingACapture(t *testing.T) {
	o, err := rules.ParseBacktrace(`#0  mremap (addr=0x10, old_len=4096, new_len=8192, flags=0) at mremap.c:32
#1  0x02 in ?? () from /usr/lib/libphp.so
#2  0x03 in concat_function ()
(More stack frames follow...)
#0  0x01 in poll () from libc.so.6
`)
	if err != nil {
		t.Fatal(err)
	}
	c := Pasted(o)
	if err := c.Normalize(); err != nil {
		t.Fatal(err)
	}
	got := Observe(c)
	got.Facts = nil
	if diff := cmp.Diff(o, got); diff != "" {
		t.Error(diff)
	}
	if c.Observation.Stops != 1 || c.Observation.Samples != 1 {
		t.Errorf("%+v", c.Observation)
	}
}
