// Package page tests the status page in a browser: with pictures that a test
// makes up, and with a daemon that runs. It has no other code.
package page
