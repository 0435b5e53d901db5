package config

import "fmt"

// Bounds of what a configuration may hold. The tables of the data plane have
// their own, which the reconciler knows.
const (
	maxFiles      = 1024
	maxFileBytes  = 1 << 20 // of one; the rendered form of a merged configuration may be longer
	maxTotalBytes = 64 << 20
	maxGroups     = 16384
	maxAnchors    = 32768
	maxVIPs       = 16384
	maxFrontends  = 65536
	maxBackends   = 131072
	maxProblems   = 1000 // shown for one file
)

// builder gathers what the files say and everything that is wrong with it.
type builder struct {
	daemon    *daemonDraft
	groups    []*groupDraft // load order
	vips      []*vipDraft   // load order
	groupByID map[string]*groupDraft
	vipByID   map[string]*vipDraft
	policy    policyDraft
	files     []string
	main      Main

	// unread: a file could not be read or parsed, so nobody knows which groups
	// it names.
	unread bool

	problems []Problem
	warnings Warnings
	shown    map[*fileText]int
}

// Drafts are values with the places that checks across objects point at.
type (
	daemonDraft struct {
		Daemon
		at span
	}
	groupDraft struct {
		Group
		at        span
		anchors   []span
		metricsAt span
	}
	vipDraft struct {
		VIP
		at                  span
		frontends           []span
		backends            backendsDraft
		clients, except     []word
		clientsAt, hiddenAt span
		healthAt            span
		algorithmAt         span
		unknownPortsAt      span
		views               []*viewDraft
		frontendsOK         bool // all could be read
	}
	viewDraft struct {
		View
		at       span
		backends backendsDraft
	}
)

func newBuilder() *builder {
	return &builder{
		groupByID: make(map[string]*groupDraft),
		vipByID:   make(map[string]*vipDraft),
		shown:     make(map[*fileText]int),
	}
}

// add keeps problems, the first thousand of each file.
func (b *builder) add(src *fileText, ps ...Problem) {
	for _, p := range ps {
		n := b.shown[src]
		b.shown[src]++
		if src != nil && n >= maxProblems {
			if n == maxProblems {
				b.problems = append(b.problems, Problem{
					Pos: Position{File: src.name}, Severity: SeverityError, order: src.order,
					Message: fmt.Sprintf("more than %d errors; the rest is not shown", maxProblems),
				})
			}
			continue
		}
		b.problems = append(b.problems, p)
	}
}

func (b *builder) errorf(at span, hint, format string, args ...any) {
	if at.src != nil && b.shown[at.src] > maxProblems {
		return
	}
	b.add(at.src, at.problem(SeverityError, fmt.Sprintf(format, args...), hint))
}

func (b *builder) warnf(at span, hint, format string, args ...any) {
	if len(b.warnings) < maxProblems {
		b.warnings = append(b.warnings, at.problem(SeverityWarning, fmt.Sprintf(format, args...), hint))
	}
}

// finish returns the Config, or nil and everything that refuses it.
func (b *builder) finish() (*Config, Warnings, error) {
	b.check()
	Sort(b.warnings)
	if len(b.problems) > 0 {
		Sort(b.problems)
		return nil, b.warnings, &Error{Problems: b.problems}
	}
	return b.config(), b.warnings, nil
}
