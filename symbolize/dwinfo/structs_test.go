package dwinfo

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
)

// zendTypedefs are the names that php-src's own code uses for the tags in
// testdata/zend-8.2.32-nts.json.
var zendTypedefs = map[string]string{
	"zend_executor_globals": "_zend_executor_globals", "zend_execute_data": "_zend_execute_data",
	"zend_op_array": "_zend_op_array", "zend_op": "_zend_op", "zend_string": "_zend_string",
	"zend_class_entry": "_zend_class_entry", "zend_function": "_zend_function",
	"zend_internal_function": "_zend_internal_function", "zval": "_zval_struct",
	"sapi_globals_struct": "_sapi_globals_struct", "zend_mm_heap": "_zend_mm_heap",
	"zend_generator": "_zend_generator", "zend_fiber": "_zend_fiber", "zend_object": "_zend_object",
	"zend_closure": "_zend_closure", "Bucket": "_Bucket", "HashTable": "_zend_array",
	"zend_module_entry": "_zend_module_entry",
}

type zendFacts struct {
	Structs map[string]struct {
		Size     uint64
		Complete bool // all members are listed
		Members  map[string][]uint64
	}
}

func TestZendLayoutsMatchTheRecordedFacts(t *testing.T) {
	b, err := os.ReadFile("testdata/zend-8.2.32-nts.json")
	if err != nil {
		t.Fatal(err)
	}
	var facts zendFacts
	if err := json.Unmarshal(b, &facts); err != nil {
		t.Fatal(err)
	}
	f := openELF(t, phpBinary(t))
	d, err := Open(elfSections{f}, nil)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"sapi_request_info", "_zend_vm_stack"}
	for n := range facts.Structs {
		names = append(names, n)
	}
	for n := range zendTypedefs {
		names = append(names, n)
	}
	got, err := d.Structs(names...)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if got[n] == nil {
			t.Errorf("%s: not found", n)
		}
	}
	for name, want := range facts.Structs {
		s := got[name]
		if s == nil {
			continue
		}
		n := 0
		for m := range s.Members {
			if strings.Count(m, ".") < 4 { // deeper ones are not in the record
				n++
			}
		}
		if s.Size != want.Size || (want.Complete && n != len(want.Members)) {
			t.Errorf("%s: size %d, %d members; want %d, %d", name, s.Size, n, want.Size, len(want.Members))
		}
		for m, w := range want.Members {
			g := s.Members[m]
			v := []uint64{g.Offset, g.Size}
			if g.BitSize > 0 {
				v = append(v, uint64(g.BitOffset), uint64(g.BitSize))
			}
			if !slices.Equal(v, w) {
				t.Errorf("%s.%s: %v, want %v", name, m, v, w)
			}
		}
	}
	for typedef, tag := range zendTypedefs {
		a, b := got[typedef], got[tag]
		if a == nil || b == nil || a.Size != b.Size || len(a.Members) != len(b.Members) {
			t.Errorf("%s is not %s", typedef, tag)
		}
	}
}

func TestStructsInLooksOnlyAtTheUnitsGiven(t *testing.T) {
	f := openELF(t, phpBinary(t))
	d, err := Open(elfSections{f}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var executeEx uint64
	for _, s := range functionSymbols(t, f) {
		if s.Name == "execute_ex" {
			executeEx = s.Value
		}
	}
	// zend_mm_heap is private to zend_alloc.c.
	got, err := d.StructsIn([]uint64{executeEx}, "_zend_execute_data", "_zend_mm_heap")
	if err != nil {
		t.Fatal(err)
	}
	if got["_zend_execute_data"] == nil || got["_zend_mm_heap"] != nil {
		t.Errorf("execute_ex's unit: execute_data %v, mm_heap %v", got["_zend_execute_data"], got["_zend_mm_heap"])
	}
	if n := len(d.main.units); n != 1 {
		t.Errorf("%d units were opened, want 1", n)
	}
	if got, err := d.StructsIn([]uint64{1}, "_zval_struct"); len(got) != 0 || err != nil {
		t.Errorf("address of no unit: %v, %v", got, err)
	}
}
