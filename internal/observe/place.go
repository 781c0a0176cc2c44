package observe

import (
	"strings"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/zend"
)

// The places that PHP code runs in besides the script itself, as messages name
// them.
const (
	inRequest    = "the request"
	inShutdown   = "a shutdown function"
	inDestructor = "a destructor"
	inAutoloader = "an autoloader"
)

// calledFrom are the engine's functions that call PHP code of a special kind.
var calledFrom = map[string]string{
	"zend_lookup_class_ex": inAutoloader, "zend_lookup_class": inAutoloader, "spl_autoload_call": inAutoloader,
	"spl_perform_autoload": inAutoloader, "zend_fetch_class_by_name": inAutoloader,
	"zend_objects_destroy_object": inDestructor,
	"php_call_shutdown_functions": inShutdown, "user_shutdown_function_call": inShutdown,
}

// mainPlace is where most of the stacks with PHP frames were: of places inside each
// other the innermost.
func mainPlace(c *capture.Capture, phase zend.Phase) string {
	places := make([]string, len(c.Stacks))
	for i := range c.Stacks {
		places[i] = placeOf(&c.Stacks[i], phase)
	}
	count := make(map[string]int)
	most := ""
	for i := range c.Events {
		p := places[c.Events[i].Stack]
		if p == "" {
			continue
		}
		if count[p]++; count[p] >= count[most] {
			most = p
		}
	}
	return most
}

func placeOf(s *stack.Stack, phase zend.Phase) string {
	php := false
	for i := range s.Frames {
		f := &s.Frames[i]
		if f.Kind == stack.PHP {
			php = true
			if strings.EqualFold(f.Function, "__destruct") {
				return inDestructor
			}
		} else if p, ok := calledFrom[f.Function]; ok && php {
			return p
		}
	}
	switch {
	case !php:
		return ""
	case phase == zend.PhaseShutdown:
		return inShutdown
	case phase == zend.PhaseDestructor:
		return inDestructor
	}
	return inRequest
}
