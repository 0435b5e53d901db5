package daemon

import (
	"log/slog"

	"github.com/coreos/go-systemd/v22/journal"
)

// Events that scripts may wait for in the journal: SLICELB_EVENT= has the name,
// MESSAGE_ID= the number, which stays the same. A log record with the attribute
// "event" is one.
const (
	eventBackendUp      = "backend-up"
	eventBackendDown    = "backend-down"
	eventBackendOrdered = "backend-ordered" // by an operator: drain, maint, ready
	eventVIPUp          = "vip-up"
	eventVIPDown        = "vip-down"
	eventReloaded       = "reloaded"
	eventReloadFailed   = "reload-failed"
	eventDenied         = "denied"
	eventAudited        = "audited"
	eventRejected       = "rejected"
	eventSuppressed     = "suppressed"
)

var messageIDs = map[string]string{
	eventBackendUp:      "35e65f7792f94251854e847d01752655",
	eventBackendDown:    "57afa3c2c6734296b4251e26aba81471",
	eventBackendOrdered: "ae8492675714402bbc18f61e6d22805b",
	eventVIPUp:          "0cd96a41555d4c9b997094a790f1fa26",
	eventVIPDown:        "e39ff827d72f4f93b91d1a0d2086c61d",
	eventReloaded:       "e9272877f0694be488aa2339ef1c7eb1",
	eventReloadFailed:   "91ecd9730b0748e9969842a83596d66b",
	eventDenied:         "d2fa47ce23094545a35b7b4b50a0bb06",
	eventAudited:        "570086ea78b948ccb5e2c0f585f54b2f",
	eventRejected:       "8793e52195e042579d4fe19dac221bb4",
	eventSuppressed:     "b094b50fe2e04cb992254de41ff423f4",
}

// journalFields are the attributes that become fields of their own.
var journalFields = map[string]string{
	"event":   "SLICELB_EVENT",
	"vip":     "SLICELB_VIP",
	"group":   "SLICELB_GROUP",
	"backend": "SLICELB_BACKEND",
}

// fieldsOf are a record's fields; nil where it is no event.
func fieldsOf(r slog.Record) map[string]string {
	var fields map[string]string
	r.Attrs(func(a slog.Attr) bool {
		if name, ok := journalFields[a.Key]; ok {
			if fields == nil {
				fields = map[string]string{}
			}
			if text := a.Value.String(); text != "" {
				fields[name] = text
			}
		}
		return true
	})
	id := messageIDs[fields["SLICELB_EVENT"]]
	if id == "" {
		return nil
	}
	fields["MESSAGE_ID"] = id
	fields["SYSLOG_IDENTIFIER"] = "slicelb"
	return fields
}

// sendJournal is what tests replace.
var sendJournal = func(message string, priority int, fields map[string]string) error {
	return journal.Send(message, journal.Priority(priority), fields)
}
