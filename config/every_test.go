package config

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// One error neither hides another nor makes a third out of what is right.
func TestEveryError(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"unit and port", unit("web.timer", "1.2.3.4:0"), []string{
			`4:8: unit "web.timer": is no service, socket or scope in [[vip.db.backend]]`,
			`5:11: backend "1.2.3.4:0": port 0 is not from 1 to 65535 in [[vip.db.backend]]`,
		}},
		{"unit and instance alone", unit("web?.service", "%i"), []string{
			`4:8: unit "web?.service": "*" is the only wildcard in [[vip.db.backend]]`,
			`5:11: address "%i": %i has no meaning, "web?.service" has no instance in [[vip.db.backend]]`,
		}},
		{"unit and specifier", unit("web", "127.0.0.1:%j"), []string{
			`4:8: unit "web": is no service, socket or scope in [[vip.db.backend]]`,
			`5:11: address "127.0.0.1:%j": %i, the instance, is the only specifier in [[vip.db.backend]]`,
		}},
		{"unit and an address that is right", unit("web@.service", "127.0.0.1:%i"), []string{
			`4:8: unit "web@.service": a template, which never runs itself in [[vip.db.backend]]`,
		}},
		{"unit and no address", backend(`unit = "web"`), []string{
			`3:3: [[vip.db.backend]] has no address`,
			`4:8: unit "web": is no service, socket or scope in [[vip.db.backend]]`,
		}},
		{"unit's type and port", backend("unit = 3\naddress = \"1.2.3.4:0\""), []string{
			`4:8: unit in [[vip.db.backend]] must be a string, not an integer`,
			`5:11: backend "1.2.3.4:0": port 0 is not from 1 to 65535 in [[vip.db.backend]]`,
		}},
		{"health type", health("type = \"htp\"\npath = \"/x\"\nhost = \"x\"\nexpect = \"600\"\ninsecure = true\nca_file = \"x\""), []string{
			`6:8: type "htp" in [vip.db.health] is not known`,
			`9:10: expect "600": "600" is no status from 200 to 599 in [vip.db.health]`,
			`11:11: ca_file "x" in [vip.db.health] is not an absolute path`,
			`11:11: ca_file in [vip.db.health] does nothing with insecure = true`,
		}},
		{"interval and a timeout that is right", health("interval = \"1d\"\ntimeout = \"5s\""), []string{
			`6:12: interval "1d" in [vip.db.health] is no duration`,
		}},
		{"a date and a number", "[daemon]\nslots = 8192\nx = 2020-13-45\ny = 1__0\nz = \"\\q\"\n", []string{
			`3:5: not TOML: invalid datetime: "2020-13-45"`,
			`4:6: not TOML: number must have at least one digit between underscores`,
			`5:6: not TOML: invalid escape character U+0071 'q'`,
		}},
		{"a date and a key twice", "x = 2020-13-45\na = 1\na = 2\n", []string{
			`1:5: not TOML: invalid datetime: "2020-13-45"`,
			`3:1: "a" is set twice`,
		}},
		{"an integer that is too large, in an array", "x = [1, 99999999999999999999]\ny =\n", []string{
			`1:9: not TOML: 99999999999999999999 is out of range for int64`,
			`2:4: not TOML: unexpected character U+000A at start of value`,
		}},
		// What follows an array that is open belongs to nothing until a header comes.
		{"an array", "[group.a]\nslices = [\n  \"a.slice\n]\nsplit = \"*\"\nx = 1__0\n[group.b]\nx = 1__0\n[vip.c\nx = 1__0\n[vip.d]\nx = 1__0\n", []string{
			`3:11: not TOML: basic strings cannot have new lines`,
			`8:6: not TOML: number must have at least one digit between underscores`,
			`9:7: not TOML: expected ']' to close table name`,
			`12:6: not TOML: number must have at least one digit between underscores`,
		}},
		{"a text cut short", "[group.a]\nslices = [\"a.slice\"", []string{
			`2:19: not TOML: array is incomplete`,
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("a.toml", []byte(tt.text))
			var bad *Error
			if !errors.As(err, &bad) {
				t.Fatal("not refused")
			}
			var got []string
			for _, p := range bad.Problems {
				got = append(got, fmt.Sprintf("%d:%d: %s", p.Pos.Line, p.Pos.Column, p.Message))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
