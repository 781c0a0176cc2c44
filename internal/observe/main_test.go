package observe

import (
	"os"
	"testing"

	"github.com/phpwhy/phpwhy/internal/perf"
	"github.com/phpwhy/phpwhy/internal/ptrace"
)

// TestMain lets the test program stand in for phpwhy where it runs itself.
func TestMain(m *testing.M) {
	if ptrace.IsHelper(os.Args[1:]) {
		os.Exit(ptrace.HelperMain(os.Args[1:]))
	}
	if perf.IsHelper(os.Args[1:]) {
		os.Exit(perf.HelperMain(os.Args[1:]))
	}
	os.Exit(m.Run())
}
