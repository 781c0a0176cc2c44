package capture

import (
	"strings"
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
	if len(c.Observation.Notes) != 0 {
		t.Errorf("notes %q", c.Observation.Notes)
	}
	if c.Observation.Stops != 1 || c.Observation.Samples != 1 {
		t.Errorf("%+v", c.Observation)
	}
}

func TestNamesThatStraceGuessesAreToldAsSuch(t *testing.T) {
	o, err := rules.ParseBacktrace("mremap(0x7f8936600000, 8192, 12288, 0) = 0x7f8936600000\n > /lib/libc.so.6(mremap+0xa) [0x11]\n > /usr/bin/php8.2(zend_mm_gc+0x20c) [0x2f]\n")
	if err != nil {
		t.Fatal(err)
	}
	if notes := Pasted(o).Observation.Notes; len(notes) != 1 || !strings.Contains(notes[0], "nearest symbol") {
		t.Errorf("notes %q", notes)
	}
}
