package observe

import (
	"github.com/phpwhy/phpwhy/symbolize"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// newImage looks for files and for debug files where the process has them, which
// may be in a container.
func (s *session) newImage(maps remote.Mappings) *symbolize.Image {
	img := symbolize.NewImage(maps, s.from.OpenMapped, s.mem, s.cache)
	img.Inside(s.from.OpenInRoot)
	return img
}

// unopened tells of a module whose file was out of reach.
func (s *session) unopened(m *symbolize.Module) {
	if m.Unopened != nil {
		s.note("%s was read from the worker's memory, where functions that it does not export have no names: its file was replaced, or can't be opened without CAP_CHECKPOINT_RESTORE", m.Name)
	}
}
