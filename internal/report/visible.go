package report

// Visible makes a string from a target safe to show anywhere: controls, bidi
// overrides and stray bytes are spelt out.
func Visible(s string) string { return visible(s) }

// Number is n with thousands separators.
func Number(n int) string { return number(n) }

// Size is n bytes as a person says it.
func Size(n uint64) string { return size(n) }

// Duration is a time in microseconds as a person says it.
func Duration(us int64) string { return duration(us) }
