// Package failpoint marks the places between the steps of the protocol, so
// that tests can kill the process at each of them. In a build without the tag
// failpoints the marks cost nothing and do nothing.
package failpoint

// Names lists the marks, in the order of a session's life. Tests kill at each.
func Names() []string {
	return []string{
		EnterDone, LeaveBegin, LeaveDone,
		SleepBegin, SleepDone, DrainDone, CutDone, CallBegin, CallDone, PauseDone,
		WakeBegin, WakeDone, ConnectDone, ResumeDone,
	}
}

// The marks: after a step unless the name says that it begins.
const (
	EnterDone   = "enter-done"   // presence is in the store, nobody has been told
	LeaveBegin  = "leave-begin"  // presence is about to be taken back
	LeaveDone   = "leave-done"   // it is gone from the store
	SleepBegin  = "sleep-begin"  // a session is idle, nothing is written
	SleepDone   = "sleep-done"   // PAUSING is written, by the leader
	DrainDone   = "drain-done"   // PAUSING is written, by hand
	CutDone     = "cut-done"     // the pause is forced, requests are about to be ended
	CallBegin   = "call-begin"   // all is checked, the host is about to be called
	CallDone    = "call-done"    // the host has paused the sandbox, nothing is written
	PauseDone   = "pause-done"   // PAUSED is written
	WakeBegin   = "wake-begin"   // a request waits, nothing is written
	WakeDone    = "wake-done"    // RESUMING is written
	ConnectDone = "connect-done" // the host has resumed the sandbox, nothing is written
	ResumeDone  = "resume-done"  // RUNNING is written, the request waits still
)
