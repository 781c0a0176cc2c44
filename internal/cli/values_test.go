package cli_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/phpwhy/phpwhy/internal/testphp"
)

func TestValuesAreShownOnlyWhenAskedFor(t *testing.T) {
	script := filepath.Join(t.TempDir(), "shop.php")
	const code = `<?php
class Shop { function order(int $id, string $dbPassword, ...$more) { $note = "line\n\x1b[31mred"; $later = null; $nope ??= $this; echo "ready\n"; sleep(1000); if (!$id) $unset = 1; } }
(new Shop)->order(7, 'hunter two', 2.5);
`
	if err := os.WriteFile(script, []byte(code), 0o600); err != nil {
		t.Fatal(err)
	}
	w := testphp.Start(t, testphp.Stripped(t), script)
	pid := fmt.Sprint(w.PID)
	for _, cmd := range [][]string{{"dump", pid}, {"attach", "--for", "300ms", pid}} {
		plain := run(t, append(cmd, "--format", "json")...)
		if plain.code != 0 || strings.Contains(plain.out, "values") || strings.Contains(plain.out, "variables") || strings.Contains(plain.out, "$id") {
			t.Errorf("%v: exit %d: %s", cmd, plain.code, plain.out)
		}
		text := run(t, append(cmd, "--values", "--var", "id@shop.php", "--var", "$dbPassword@shop.php:2")...)
		for _, want := range []string{
			"\n          $this = object(Shop)#1\n          $id = 7\n          $dbPassword = [redacted] (string)\n          $more = array(1)\n          $more[0] = 2.5\n",
			"\n          $note = \"line\\n\\x1b[31mred\"\n          $later = null\n", "\n          not set: $unset\n", "\n          $seconds = 1000\n",
			"\n$id at shop.php: 7; ", "\n$dbPassword at shop.php:2: [redacted]; seen ",
		} {
			if text.code != 0 || !strings.Contains(text.out, want) {
				t.Errorf("%v: exit %d: no %q in %s", cmd, text.code, want, text.out)
			}
		}
		r := run(t, append(cmd, "--values", "--var", "id@shop.php", "--format", "json")...)
		if strings.Contains(text.out+r.out, "hunter") || strings.ContainsRune(text.out+r.out, 0x1b) {
			t.Errorf("%v: %s", cmd, r.out)
		}
		var rep struct {
			Variables []struct {
				Var, At, First, Last, Trend string
				Seen, Distinct              int
			}
			Stacks []struct {
				Frames []struct {
					Kind   string
					Values *[]struct{ Name, Kind, Type, Value string }
				}
			}
		}
		if err := json.Unmarshal([]byte(r.out), &rep); err != nil {
			t.Fatal(err, r.err)
		}
		if v := rep.Variables; len(v) != 1 || v[0].Var != "id" || v[0].First != "7" || v[0].Last != "7" || v[0].Distinct != 1 || v[0].Seen < 1 {
			t.Errorf("variables %+v", v)
		}
		for _, f := range rep.Stacks[0].Frames {
			if (f.Values != nil) != (f.Kind == "php") {
				t.Errorf("frame %+v", f)
			}
		}
	}
}

func TestAnUnusableVarIsAUsageError(t *testing.T) {
	for _, v := range []string{"", "row", "row@", "@x.php:3", "row@x.php:0", "row@x.php:abc", "2@x.php", "a\nb@x.php"} {
		for _, cmd := range []string{"dump", "attach"} {
			oneLine(t, run(t, cmd, "1", "--var", v), 2, "--var")
		}
	}
}
