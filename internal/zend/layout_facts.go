package zend

// Member is where a struct has a member, in bytes. Size is 0 where that is not
// known.
type Member struct{ Off, Size uint64 }

func (m Member) known() bool { return m.Size != 0 }

// FactMembers are the members that facts are read from. A version that lacks
// one only lacks that fact.
type FactMembers struct {
	// EG(flags), since 7.2 (Zend/zend_globals.h).
	EGFlags Member
	// zend_gc_globals (Zend/zend_gc.c): its roots are counted since 7.3, the
	// time is taken since 8.3.
	GCEnabled, GCActive, GCProtected       Member
	GCRuns, GCCollected                    Member
	GCRoots, GCBuffer, GCThreshold, GCTime Member
	// zend_output_globals and php_output_handler (main/php_output.h).
	OutputActive, OutputTop   Member
	HandlerSize, HandlerUsed  Member
	HeapCustom, HeapFunctions Member // zend_mm_heap.use_custom_heap and custom_heap
	HeapStorage               Member
	StorageHandlers           Member
	HandlersName              Member // PHP 5 only
}

const gcStruct = "_zend_gc_globals"

// apart are the structs that no function the walk needs has to do with: DWARF
// is searched for them only where there is no table.
var apart = []string{gcStruct, "_zend_output_globals", "_php_output_handler", "_zend_mm_storage", "_zend_mm_mem_handlers"}

// fill takes the members that there are.
func (f *FactMembers) fill(structs map[string]Struct) {
	for _, m := range []struct {
		dst          *Member
		name, member string
	}{
		{&f.EGFlags, "_zend_executor_globals", "flags"},
		{&f.GCEnabled, gcStruct, "gc_enabled"},
		{&f.GCActive, gcStruct, "gc_active"},
		{&f.GCProtected, gcStruct, "gc_protected"},
		{&f.GCRuns, gcStruct, "gc_runs"},
		{&f.GCCollected, gcStruct, "collected"},
		{&f.GCRoots, gcStruct, "num_roots"},
		{&f.GCBuffer, gcStruct, "buf_size"},
		{&f.GCThreshold, gcStruct, "gc_threshold"},
		{&f.GCTime, gcStruct, "collector_time"},
		{&f.OutputActive, "_zend_output_globals", "active"},
		{&f.OutputTop, "_zend_output_globals", "handlers.top"},
		{&f.HandlerSize, "_php_output_handler", "buffer.size"},
		{&f.HandlerUsed, "_php_output_handler", "buffer.used"},
		{&f.HeapCustom, "_zend_mm_heap", "use_custom_heap"},
		{&f.HeapFunctions, "_zend_mm_heap", "custom_heap"},
		{&f.HeapStorage, "_zend_mm_heap", "storage"},
		{&f.StorageHandlers, "_zend_mm_storage", "handlers"},
		{&f.HandlersName, "_zend_mm_mem_handlers", "name"},
	} {
		if at, ok := structs[m.name].Members[m.member]; ok {
			*m.dst = Member{at[0], at[1]}
		}
	}
}

// fillApart takes the members of the structs that are apart from the table's
// layout, or from DWARF where the version has no table.
func (f *FactMembers) fillApart(t Types, table *Layout) {
	if table != nil {
		own := *f
		*f = table.Facts
		f.EGFlags, f.HeapCustom, f.HeapFunctions, f.HeapStorage = own.EGFlags, own.HeapCustom, own.HeapFunctions, own.HeapStorage
		return
	}
	if structs, err := t.Structs(apart...); err == nil {
		f.fill(structs)
	}
}
