package unitwatch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"
)

var discard = slog.New(slog.DiscardHandler)

func TestDecodeSignal(t *testing.T) {
	unit := systemdPath + "/unit/x"
	tests := []struct {
		name, iface, member string
		body                []any
		want                event
		ok, bad             bool
	}{
		{"OK UnitNew", managerIface, "UnitNew", []any{"a.service", unit}, event{unit: "a.service"}, true, false},
		{"OK UnitRemoved", managerIface, "UnitRemoved", []any{`a\x2db.slice`, unit}, event{unit: `a\x2db.slice`}, true, false},
		{"OK JobRemoved", managerIface, "JobRemoved", []any{uint32(1), unit, "a.scope", "done"}, event{unit: "a.scope"}, true, false},
		{"OK JobNew", managerIface, "JobNew", []any{uint32(1), unit, "a.scope"}, event{unit: "a.scope", isJob: true}, true, false},
		{"bad JobNew", managerIface, "JobNew", []any{uint32(1), unit, "a.scope", "done"}, event{}, false, true},
		{"OK Reloading", managerIface, "Reloading", []any{true}, event{isReload: true, reloading: true}, true, false},
		{"OK Reloading ends", managerIface, "Reloading", []any{false}, event{isReload: true}, true, false},
		{"OK owner", busName, nameOwnerEvent, []any{systemdName, "", ":1.1"}, event{isOwner: true, owner: ":1.1"}, true, false},
		{"OK owner leaves", busName, nameOwnerEvent, []any{systemdName, ":1.1", ""}, event{isOwner: true}, true, false},
		{"another's owner", busName, nameOwnerEvent, []any{"x.y", "", ":1.1"}, event{isOwner: true, owner: ":1.1"}, false, false},
		{"another member", managerIface, "StartupFinished", []any{1}, event{}, false, false},
		{"another interface", "x.y", "UnitNew", []any{"a.service", unit}, event{}, false, false},
		{"bad arity", managerIface, "UnitNew", []any{"a.service"}, event{}, false, true},
		{"bad arity, none", managerIface, "Reloading", nil, event{}, false, true},
		{"bad arity, more", managerIface, "Reloading", []any{true, true}, event{}, false, true},
		{"bad type", managerIface, "UnitNew", []any{"a.service", "/x"}, event{}, false, true},
		{"bad job", managerIface, "JobRemoved", []any{uint64(1), unit, "a.scope", "done"}, event{}, false, true},
		{"bad bool", managerIface, "Reloading", []any{uint32(1)}, event{}, false, true},
		{"bad unit", managerIface, "UnitNew", []any{"a b.service", unit}, event{}, false, true},
		{"bad unit, empty", managerIface, "UnitNew", []any{"", unit}, event{}, false, true},
		{"bad unit, path", managerIface, "UnitNew", []any{"../x.service", unit}, event{}, false, true},
		{"bad unit, long", managerIface, "UnitNew", []any{strings.Repeat("x", 256), unit}, event{}, false, true},
		{"bad owner", busName, nameOwnerEvent, []any{systemdName, "", "org.forged"}, event{}, false, true},
		{"bad owner type", busName, nameOwnerEvent, []any{systemdName, "", 1}, event{}, false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok, err := decodeSignal(tt.iface, tt.member, tt.body)
			if ok != tt.ok || (err != nil) != tt.bad || err != nil && !errors.Is(err, errBadSignal) {
				t.Errorf("ok %v, error %v", ok, err)
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(event{})); diff != "" {
				t.Errorf("event (-want +got):\n%s", diff)
			}
		})
	}
}

// fault F9: whoever is not systemd is not heard, whatever it says.
func TestSenderDecides(t *testing.T) {
	in, count := newInbox(), &counters{}
	b := newBus(Options{Log: discard}, in, count)
	b.setOwner(":1.1")
	good := func(sender string) *dbus.Signal {
		return &dbus.Signal{Sender: sender, Path: systemdPath, Body: []any{"a.service", unitObject}}
	}
	for _, sender := range []string{"", ":1.2", ":1.10", "org.freedesktop.systemd1", "org.freedesktop.DBus.x"} {
		b.DeliverSignal(managerIface, "UnitNew", good(sender))
		if b.accept(header{kind: dbus.TypeSignal, sender: sender}) {
			t.Errorf("sender %q is accepted", sender)
		}
	}
	b.DeliverSignal(managerIface, "UnitNew", good(busName)) // the bus does not speak for systemd
	b.DeliverSignal(busName, nameOwnerEvent, &dbus.Signal{Sender: ":1.1", Path: busPath, Body: []any{systemdName, ":1.1", ":1.2"}})
	b.DeliverSignal(managerIface, "UnitNew", &dbus.Signal{Sender: ":1.1", Path: "/elsewhere", Body: []any{"a.service", unitObject}})
	if m := in.take(); len(m.units) > 0 || m.resync != "" || count.signals.Load() != 0 || b.currentOwner() != ":1.1" {
		t.Errorf("heard: %+v, owner %q", m, b.currentOwner())
	}
	if got := count.forged.Load(); got != 10 {
		t.Errorf("%d forged, want 10", got)
	}
	b.DeliverSignal(managerIface, "UnitNew", good(":1.1"))
	if m := in.take(); len(m.units) != 1 {
		t.Errorf("systemd is not heard: %+v", m)
	}
	for _, kind := range []dbus.Type{dbus.TypeMethodCall, 0, 9} {
		if b.accept(header{kind: kind, sender: ":1.1"}) {
			t.Errorf("a message of type %d is accepted", kind)
		}
	}
	b.setOwner("") // nobody is systemd: an empty sender is not it
	if b.accept(header{kind: dbus.TypeSignal}) {
		t.Error("a signal without a sender is accepted")
	}
}

func encode(t testing.TB, order binary.ByteOrder, sender string, body ...any) []byte {
	t.Helper()
	msg := &dbus.Message{Type: dbus.TypeSignal, Body: body, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldPath:      dbus.MakeVariant(systemdPath),
		dbus.FieldInterface: dbus.MakeVariant(managerIface),
		dbus.FieldMember:    dbus.MakeVariant("UnitNew"),
	}}
	if sender != "" {
		msg.Headers[dbus.FieldSender] = dbus.MakeVariant(sender)
	}
	if len(body) > 0 {
		msg.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(body...))
	}
	var buf bytes.Buffer
	if err := msg.EncodeTo(&buf, order); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

type stream struct {
	io.Reader
	io.Writer
}

func (stream) Close() error { return nil }

func TestFrames(t *testing.T) {
	big := strings.Repeat("x", maxSignal)
	var in bytes.Buffer
	in.WriteString("OK 1234\r\n")
	in.Write(encode(t, binary.LittleEndian, ":1.1", "first.service", unitObject))
	in.Write(encode(t, binary.LittleEndian, ":1.2", "forged.service", unitObject))
	in.Write(encode(t, binary.BigEndian, ":1.1", "second.service", unitObject))
	in.Write(encode(t, binary.LittleEndian, ":1.1", big, unitObject))
	in.Write(encode(t, binary.LittleEndian, "", "nobody.service", unitObject))
	in.Write(encode(t, binary.LittleEndian, ":1.1"))
	var seen []header
	f := newFrames(stream{&in, io.Discard}, func(h header) bool { seen = append(seen, h); return h.sender == ":1.1" })
	line := make([]byte, 9)
	if _, err := io.ReadFull(f, line); err != nil || string(line) != "OK 1234\r\n" {
		t.Fatalf("authentication: %q, %v", line, err)
	}
	if _, err := f.Write([]byte("BEGIN\r\n")); err != nil {
		t.Fatal(err)
	}
	var got []string
	for {
		msg, err := dbus.DecodeMessage(f)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		name := "-"
		if len(msg.Body) > 0 {
			name = msg.Body[0].(string)
		}
		got = append(got, name)
	}
	if diff := cmp.Diff([]string{"first.service", "second.service", "-"}, got); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
	want := []header{
		{kind: dbus.TypeSignal, sender: ":1.1"}, {kind: dbus.TypeSignal, sender: ":1.2"}, {kind: dbus.TypeSignal, sender: ":1.1"},
		{kind: dbus.TypeSignal, oversize: true}, {kind: dbus.TypeSignal}, {kind: dbus.TypeSignal, sender: ":1.1"},
	}
	for i := range want {
		if !want[i].oversize {
			want[i].path = string(systemdPath)
		}
	}
	if diff := cmp.Diff(want, seen, cmp.AllowUnexported(header{})); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
}

// fault F27: whatever the bus sends: no panic, and what is passed on is whole.
func FuzzMessages(f *testing.F) {
	f.Add(encode(f, binary.LittleEndian, ":1.1", "a.service", unitObject))
	f.Add(encode(f, binary.BigEndian, ":1.1", uint32(1), unitObject, "a.service", "done"))
	f.Add(encode(f, binary.LittleEndian, "", true))
	f.Add([]byte("l\x04\x00\x01\xff\xff\xff\xff\x01\x00\x00\x00\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		count := &counters{}
		b := newBus(Options{Log: discard}, newInbox(), count)
		b.setOwner(":1.1")
		fr := newFrames(stream{bytes.NewReader(data), io.Discard}, b.accept)
		fr.binary.Store(true)
		for range 100 {
			msg, err := dbus.DecodeMessage(fr)
			if err != nil {
				if _, invalid := err.(dbus.InvalidMessageError); !invalid {
					return
				}
				continue
			}
			iface, _ := msg.Headers[dbus.FieldInterface].Value().(string)
			member, _ := msg.Headers[dbus.FieldMember].Value().(string)
			sender, _ := msg.Headers[dbus.FieldSender].Value().(string)
			path, _ := msg.Headers[dbus.FieldPath].Value().(dbus.ObjectPath)
			if msg.Type == dbus.TypeSignal && sender != ":1.1" && sender != busName {
				t.Fatalf("a signal of %q passed", sender)
			}
			b.DeliverSignal(iface, member, &dbus.Signal{Sender: sender, Path: path, Body: msg.Body})
		}
	})
}

// fault F27: bodies of any shape.
func FuzzDecodeSignal(f *testing.F) {
	f.Add("UnitNew", "so", []byte("\x09\x00\x00\x00a.service\x00\x00\x00\x02\x00\x00\x00/x\x00"))
	f.Add("Reloading", "b", []byte("\x01\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, member, signature string, body []byte) {
		sig, err := dbus.ParseSignature(signature)
		if err != nil || len(body) > maxSignal {
			return
		}
		msg := new(bytes.Buffer)
		full := &dbus.Message{Type: dbus.TypeSignal, Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldPath:      dbus.MakeVariant(systemdPath),
			dbus.FieldInterface: dbus.MakeVariant(managerIface),
			dbus.FieldMember:    dbus.MakeVariant("X"),
			dbus.FieldSignature: dbus.MakeVariant(sig),
		}}
		if err := full.EncodeTo(msg, binary.LittleEndian); err != nil {
			return
		}
		raw := append(msg.Bytes(), body...)
		binary.LittleEndian.PutUint32(raw[4:], uint32(len(body)))
		decoded, err := dbus.DecodeMessage(bytes.NewReader(raw))
		if err != nil {
			return
		}
		e, ok, err := decodeSignal(managerIface, member, decoded.Body)
		if ok && (err != nil || !e.isReload && !validUnit(e.unit)) {
			t.Errorf("%s%v: %+v, %v", member, decoded.Body, e, err)
		}
	})
}
