// Package store keeps the sessions in etcd. It knows which bytes stand under
// which key, and which compares guard each step of the protocol; it decides
// nothing.
//
// The keys, under a prefix (default [DefaultPrefix]):
//
//	sandboxes/{id}            the record                   written at transitions and settings only
//	activity/{id}             the last sign of use         coalesced
//	presence/{id}/{node}      "may be forwarding"          on the node's lease
//	holds/{id}/{name}         keep awake                   on a lease of its own
//	nodes/{node}              a living proxy               on the node's lease
//	history/{id}/{revision}   transitions with reasons     in the same Txn as the record
//	policies/{scope}/{name}   settings of an owner or project
//	usage/{day}/{id}/{rev}    running and paused time      in the same Txn as the record; folded
//	leader/                   the election
//
// The steps, each one Txn ("mod(k) = r": nobody has written k since it was
// read under r):
//
//	step        compares                                                   puts
//	Enter       mod(record)                                                presence, activity{open}
//	Leave       mod(own presence), mod(activity)                           activity{open: another presence}; deletes presence
//	Flush       own presence exists (each key by itself)                   activity{open}
//	Lapsed      mod(activity), no presence                                 activity{closed}
//	Sleep       mod(record), mod(activity){closed}, no presence,
//	            no holds, mod(policies), create(leader key)                record, history
//	Call        mod(record), mod(activity){closed}, no presence            record, history
//	Transition  mod(record)                                                record, history
//	Woken       mod(record)                                                record, history, presence, activity{open}
//	Settle      mod(record), mod(activity) if it becomes RUNNING           record, history, activity if RUNNING
//	Adopt       no record                                                  record, history, activity if RUNNING
//	Configure   mod(record)                                                record, usage where owner or project change
//	PutHold     mod(record), a RUNNING one                                 hold
//
// A step whose compare fails returns [ErrConflict] after the [View] has caught
// up, so that the caller looks at the view again and decides anew. Any other
// error leaves it open whether the step was taken.
package store
