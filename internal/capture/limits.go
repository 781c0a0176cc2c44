package capture

// Limits on what a file may hold. A writer keeps to them too, so that whatever
// was written can be read. They lie far above what one observation gives (a
// frame is some 200 bytes) and bound the memory that a hostile file can take.
const (
	MaxLine   = 16 << 20 // bytes of one line
	MaxBytes  = 1 << 30  // bytes of one capture, decompressed
	MaxStacks = 1 << 20  // distinct stacks of one capture
	MaxEvents = 4 << 20  // events of one capture
	MaxFrames = 1 << 16  // frames of one stack
	MaxArgs   = 64       // arguments of one event or frame
	MaxValues = 1 << 10  // values of one frame
	MaxVars   = 1 << 10  // variables that one capture has watched
	MaxFacts  = 1 << 12  // facts of one capture
	maxDepth  = 4        // lists and maps inside one another in one fact
)

// limits are the constants above, as values that a test can lower.
type limits struct {
	line, stacks, events int
	bytes                int64
}

func defaultLimits() limits {
	return limits{line: MaxLine, stacks: MaxStacks, events: MaxEvents, bytes: MaxBytes}
}
