package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// What cannot be meant is refused, whoever asks.
func TestObservationQuery(t *testing.T) {
	for query, want := range map[string]string{
		"": "", "last=3&follow=true&vip=db&group=web&verdict=denied&verdict=passed&since=2026-03-04T05:06:07Z": "", "follow=false": "",
		"follow=maybe": `follow "maybe": want true or false`, "lines=3": `"lines" is not known`,
		"last=0": "", "last=-1": `last "-1": want a number from 0 on`, "last=": `last "": want a number`,
		"last=x": `last "x": want a number`, "last=99999999999999999999": "want a number", "since=yesterday": "want a time",
	} {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		_, err = observation(q)
		var refused *Error
		if (err == nil) != (want == "") || err != nil && (!errors.As(err, &refused) || refused.Code != BadRequest || !strings.Contains(refused.Text, want)) {
			t.Errorf("%s: %v, want %q", query, err, want)
		}
	}
}

// watched answers with whom it was asked by.
type watched struct{ Daemon }

func (watched) Observe(_ context.Context, o Observation) (Stream, error) {
	return nil, Errorf(Busy, "user %d", o.UID)
}

// Who watches is who the kernel says; nobody can say it in the query.
func TestObserverIsKnown(t *testing.T) {
	s := &Server{Daemon: watched{}, Log: slog.New(slog.DiscardHandler)}
	r := httptest.NewRequest("GET", Prefix+"/observe", nil)
	for _, test := range []struct {
		r      *http.Request
		status int
		want   string
	}{
		{r.WithContext(context.WithValue(r.Context(), peerKey{}, peer{uid: 1001})), http.StatusServiceUnavailable, `"user 1001"`},
		{r, http.StatusForbidden, "credentials unknown"},
		{httptest.NewRequest("GET", Prefix+"/observe?uid=0", nil), http.StatusBadRequest, `\"uid\" is not known`},
	} {
		w := httptest.NewRecorder()
		s.routes().ServeHTTP(w, test.r)
		if w.Code != test.status || !strings.Contains(w.Body.String(), test.want) {
			t.Errorf("status %d, %s, want %d, %s", w.Code, w.Body, test.status, test.want)
		}
	}
}
