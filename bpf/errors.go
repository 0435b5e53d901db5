package bpf

import (
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrExist is returned by Apply for a Put whose key is there already. The
	// kernel maps new directories by itself, so PutCgroup may meet it at any time.
	ErrExist = errors.New("entry exists")

	// ErrNotExist is returned by Apply for a Set whose key is not there.
	ErrNotExist = errors.New("no such entry")

	// ErrFull is returned by Apply when a table has no room. The error is a
	// *FullError; the entries that are there go on serving.
	ErrFull = errors.New("table is full")

	// ErrNotSupported is returned when the kernel, or the process's
	// capabilities, lack something that cannot be done without. The error is a
	// *FeatureError.
	ErrNotSupported = errors.New("not supported")

	// ErrDetached is returned by Check when a hook runs no program of ours any
	// more: its cgroup is gone, or somebody severed the link.
	ErrDetached = errors.New("detached")

	// ErrNothingStored is returned by Adopt when no descriptor was ours.
	ErrNothingStored = errors.New("no stored data plane")

	// ErrForeign is returned by Adopt when what was stored cannot be used: parts
	// are missing, of another layout, or not what their names say. The error is
	// an *AdoptError.
	ErrForeign = errors.New("stored data plane cannot be adopted")

	// ErrLayout is returned by Adopt when programs run whose maps are laid out as
	// this version does not know. They go on, for as long as the store holds them.
	// The error is an *AdoptError, and ErrForeign too.
	ErrLayout = errors.New("stored data plane of an unknown layout")
)

// FullError says which table has no room for which key.
type FullError struct {
	Table string // the map's name
	Limit uint32 // its capacity, in entries
	Key   string
}

func (e *FullError) Error() string {
	return fmt.Sprintf("table %s is full (%d entries): no room for %s", e.Table, e.Limit, e.Key)
}

func (e *FullError) Is(target error) bool { return target == ErrFull }

// FeatureError says what is missing and what a person can do about it.
type FeatureError struct {
	Feature string // what was tried
	Hint    string // what helps; may be empty
	Err     error  // what the kernel said
}

func (e *FeatureError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %v", e.Feature, e.Err)
	if e.Hint != "" {
		fmt.Fprintf(&b, " (%s)", e.Hint)
	}
	return b.String()
}

func (e *FeatureError) Is(target error) bool { return target == ErrNotSupported }
func (e *FeatureError) Unwrap() error        { return e.Err }

// DetachedError says which hook runs no program of ours any more.
type DetachedError struct {
	Hook   string
	Reason string
}

func (e *DetachedError) Error() string        { return fmt.Sprintf("hook %s: %s", e.Hook, e.Reason) }
func (e *DetachedError) Is(target error) bool { return target == ErrDetached }

// AdoptError says why the newest of the stored sets cannot be used.
type AdoptError struct {
	Set    string // the set's name
	Object string // the first object that does not fit; "" when it is about the whole set
	Reason string
	Err    error // may be nil

	layout bool // the set is of another one, by its number or by its tables, and its programs run
}

func (e *AdoptError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "stored set %s: ", e.Set)
	if e.Object != "" {
		fmt.Fprintf(&b, "%s: ", e.Object)
	}
	b.WriteString(e.Reason)
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

func (e *AdoptError) Is(target error) bool {
	return target == ErrForeign || e.layout && target == ErrLayout
}
func (e *AdoptError) Unwrap() error { return e.Err }
