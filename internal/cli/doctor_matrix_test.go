//go:build matrix

package cli_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/phpwhy/phpwhy/internal/report"
	"github.com/phpwhy/phpwhy/internal/testphp"
)

func TestDoctorLooksAtAStaticWorker(t *testing.T) {
	asRoot(t)
	musl := filepath.Join(testphp.Root(t), ".cache/php/8.2-nts-musl/bin/php")
	if _, err := os.Stat(musl); err != nil {
		testphp.Missing(t, musl)
	}
	w := testphp.Start(t, musl, testphp.Hang(t, "mem.string-concat.php"))
	d := diagnosis(t, run(t, "doctor", fmt.Sprint(w.PID), "--format", "json")).Target
	if d.Libc != "" || engineOf(t, d.Engines, "hwbp").State != report.Partly || engineOf(t, d.Engines, "syscall").State != report.Works {
		t.Errorf("%+v", d)
	}
}
