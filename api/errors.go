package api

import (
	"errors"
	"fmt"
	"net/http"
)

// Code says what kind of failure an answer is; the command line turns it into
// an exit status.
type Code string

const (
	BadRequest  Code = "bad-request"
	NotFound    Code = "not-found"
	WrongMethod Code = "wrong-method"
	Forbidden   Code = "forbidden"
	BadConfig   Code = "bad-config"
	Busy        Code = "busy"
	Conflict    Code = "conflict"
	Timeout     Code = "timeout"
	Failed      Code = "failed"
)

// Error is a failure as it crosses the socket. Text is what a person reads;
// it may span lines (a configuration's errors do).
type Error struct {
	Code Code   `json:"code"`
	Text string `json:"text"`
	Hint string `json:"hint,omitempty"`
}

func (e *Error) Error() string { return e.Text }

// Errorf makes an Error; its hint is empty.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Text: fmt.Sprintf(format, args...)}
}

// ErrNotRunning means that nothing answers at the socket.
var ErrNotRunning = errors.New("daemon not running")

// ErrNoAnswer means that something has the socket and says nothing: the daemon hangs,
// was stopped, or ended while it was asked.
var ErrNoAnswer = errors.New("daemon does not answer")

// ErrNotPermitted means that the socket may not be opened by this user.
var ErrNotPermitted = errors.New("not permitted")

func (c Code) status() int {
	switch c {
	case BadRequest:
		return http.StatusBadRequest
	case NotFound:
		return http.StatusNotFound
	case WrongMethod:
		return http.StatusMethodNotAllowed
	case Forbidden:
		return http.StatusForbidden
	case BadConfig:
		return http.StatusUnprocessableEntity
	case Conflict:
		return http.StatusConflict
	case Busy:
		return http.StatusServiceUnavailable
	case Timeout:
		return http.StatusGatewayTimeout
	default:
		return http.StatusInternalServerError
	}
}

// IsBusy reports whether a daemon did not do what it was asked because it starts, stops or
// has too much to do: who asks again is served then, by it or by the next one.
func IsBusy(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == Busy
}

// head sets what the header of an answer says of e, and returns its status.
func (e *Error) head(h http.Header) int {
	if e.Code == Busy {
		h.Set("Retry-After", "1")
	}
	return e.Code.status()
}

// asError makes any error one that can be sent.
func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Code: Failed, Text: err.Error()}
}
