package resolver

import (
	"fmt"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/services/graph/internal/loader"
	"chatapp.dev/services/graph/internal/model"
)

// MaxPageSize is the most edges that one page of a connection can have.
const MaxPageSize = 100

// pageSize checks the argument called name, first or last.
func pageSize(name string, value int) error {
	if value < 0 {
		return badArgument(errs.OutOfRange, name, "must not be negative")
	}
	if value > MaxPageSize {
		return badArgument(errs.OutOfRange, name, fmt.Sprintf("must be at most %d", MaxPageSize))
	}
	return nil
}

func badArgument(code errs.Code, name, rule string) error {
	return errs.Field(errs.Invalid, code, name, fmt.Sprintf("the argument %s %s", name, rule))
}

func badCursor(name string) error {
	return badArgument(errs.InvalidFormat, name, "must be a cursor that this list has given")
}

// forward checks the arguments of a connection that only goes forward and returns how many edges are wanted.
func (r *Resolver) forward(first *int) (int, error) {
	if first == nil {
		return r.PageSize, nil
	}
	return *first, pageSize("first", *first)
}

// messageArgs are the arguments of Conversation.messages.
type messageArgs struct {
	first  *int
	after  *string
	last   *int
	before *string
}

// messageRange checks the arguments and returns which messages they mean. Without first and last it is a default page
// at the end where a reader starts: after a cursor what follows it, else the newest.
func (r *Resolver) messageRange(args messageArgs) (loader.Range, error) {
	var wanted loader.Range
	limit := r.PageSize
	switch {
	case args.first != nil && args.last != nil:
		return wanted, badArgument(errs.InvalidFormat, "last", "must not be given together with first")
	case args.first != nil:
		if err := pageSize("first", *args.first); err != nil {
			return wanted, err
		}
		limit = *args.first
	case args.last != nil:
		if err := pageSize("last", *args.last); err != nil {
			return wanted, err
		}
		limit, wanted.FromEnd = *args.last, true
	default:
		wanted.FromEnd = args.after == nil || args.before != nil
	}
	wanted.Limit = int32(limit)
	var ok bool
	if args.after != nil {
		if wanted.AfterSeq, ok = model.ParseMessageCursor(*args.after); !ok {
			return wanted, badCursor("after")
		}
	}
	if args.before != nil {
		if wanted.BeforeSeq, ok = model.ParseMessageCursor(*args.before); !ok {
			return wanted, badCursor("before")
		}
	}
	return wanted, nil
}
