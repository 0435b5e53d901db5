package api

import (
	"errors"
	"net/url"
	"strings"
	"testing"
)

// What cannot be meant is refused, whoever asks.
func TestObservationQuery(t *testing.T) {
	for query, want := range map[string]string{
		"": "", "last=3&follow=true&vip=db&group=web&verdict=denied&verdict=passed&since=2026-03-04T05:06:07Z": "", "follow=false": "",
		"follow=maybe": `follow "maybe": want true or false`, "lines=3": `"lines" is not known`,
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
