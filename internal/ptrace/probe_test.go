package ptrace

import (
	"os"
	"testing"

	"github.com/phpwhy/phpwhy/internal/testphp"
)

func TestEveryEngineStopsTheSubject(t *testing.T) {
	if os.Geteuid() != 0 {
		testphp.Missing(t, "root")
	}
	s, err := StartSubject()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, engine := range []string{EngineHWBP, EngineInt3, EngineSyscall} {
		t.Run(engine, func(t *testing.T) {
			if n, err := s.Try(t.Context(), engine); err != nil || n < tries {
				t.Errorf("%d stops, %v", n, err)
			}
			if tracer := statusField(s.PID, "TracerPid"); tracer != "0" {
				t.Errorf("it is still traced by %s", tracer)
			}
		})
	}
	if err := TryHardware(s.PID, Breakpoint{Addr: s.At}); err != nil {
		t.Errorf("a breakpoint that is never armed: %v", err)
	}
	if n, err := s.Try(t.Context(), "magic"); err == nil {
		t.Errorf("an engine that does not exist: %d stops", n)
	}
}
