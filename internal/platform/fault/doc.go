// Package fault lets a test strike a program at a chosen line: kill it between two steps, swallow what it sends, or
// slow it down. It is the way to prove that nothing is lost when a process dies at the worst moment.
//
// In a normal build every function here is empty and inlined away, and no variable is looked at, so that nothing in
// production can be made to fail by its environment. In a build with the tag "faults" the variable CHATAPP_FAULTS lists
// faults, each name=action, separated by commas or white space. A name can be listed more than once, with different
// actions:
//
//	relay.publish=kill        Point ends the process with SIGKILL
//	relay.publish=kill:5      the same at the fifth pass
//	relay.publish=sleep:100ms every pass of Point takes that much longer
//	hint=drop                 Dropped says true at every pass
//	hint=drop:3               the same at the next three passes only
//
// The variable CHATAPP_FAULTS_FILE names a file with such a list, for striking a process that lives. While the file
// is there its list holds instead of CHATAPP_FAULTS. It is read again when its time of modification or its size
// changes, and then all passes are counted anew. A writer should rename a complete file into place. A list that cannot
// be understood ends the process at start; later it is reported on standard error and the list before it holds on.
package fault
