package rpc

import (
	"errors"
	"io"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"chatapp.dev/internal/platform/errs"
)

const (
	// errorDomain marks the details that we wrote.
	errorDomain = "chatapp.dev"
	// The keys of their metadata.
	metaCode  = "code"
	metaField = "field"

	// What a client is told about an error that was not written for it.
	internalMessage    = "internal error"
	unavailableMessage = "not available at the moment; try again"
)

// codeOf is the one table of kinds and gRPC codes. Each kind has a code of its own, so that it can be read both ways.
var codeOf = map[errs.Kind]codes.Code{
	errs.Internal:        codes.Internal,
	errs.Invalid:         codes.InvalidArgument,
	errs.Unauthenticated: codes.Unauthenticated,
	errs.Forbidden:       codes.PermissionDenied,
	errs.NotFound:        codes.NotFound,
	errs.Conflict:        codes.AlreadyExists,
	errs.RateLimited:     codes.ResourceExhausted,
	errs.Unavailable:     codes.Unavailable,
	errs.CursorExpired:   codes.OutOfRange,
	errs.CursorInvalid:   codes.FailedPrecondition,
}

// kindOfCode and kindOfName are the way back.
var (
	kindOfCode = map[codes.Code]errs.Kind{}
	kindOfName = map[string]errs.Kind{}
)

func init() {
	for kind, code := range codeOf {
		kindOfCode[code] = kind
		kindOfName[kind.String()] = kind
	}
}

// exposed returns what a client may know of an error, as an error.
func exposed(err error) *errs.Error {
	if e, ok := errs.As(err); ok {
		return e
	}
	if errs.KindOf(err) == errs.Unavailable {
		return errs.Wrap(errs.Unavailable, err, unavailableMessage)
	}
	return errs.Wrap(errs.Internal, err, internalMessage)
}

// toStatus writes an error for the wire. The cause stays behind.
func toStatus(e *errs.Error) error {
	code, ok := codeOf[e.Kind]
	if !ok {
		code = codes.Internal
	}
	info := &errdetails.ErrorInfo{Domain: errorDomain, Reason: e.Kind.String()}
	if e.Code != "" || e.Field != "" {
		info.Metadata = map[string]string{metaCode: string(e.Code), metaField: e.Field}
	}
	bare := status.New(code, e.Message)
	detailed, err := bare.WithDetails(info)
	if err != nil {
		return bare.Err()
	}
	return detailed.Err()
}

// fromStatus reads an error off the wire.
func fromStatus(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	s := statusOf(err)
	for _, detail := range s.Details() {
		info, ok := detail.(*errdetails.ErrorInfo)
		if !ok || info.GetDomain() != errorDomain {
			continue
		}
		kind, ok := kindOfName[info.GetReason()]
		if !ok {
			// A server that is newer than we are has a kind that we do not know; the code says what it is most like.
			kind = kindOfCode[s.Code()]
		}
		return errs.Field(kind, errs.Code(info.GetMetadata()[metaCode]), info.GetMetadata()[metaField], s.Message())
	}
	// No handler of ours wrote this. Its text may name hosts and is not for users, and its code does not mean what ours
	// do: ResourceExhausted, say, is a message above the limit.
	switch s.Code() {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return errs.Wrap(errs.Unavailable, err, unavailableMessage)
	default:
		return errs.Wrap(errs.Internal, err, internalMessage)
	}
}

// statusOf returns the status that came off the wire. The library's own way to it puts what was said around it, such
// as how often the call was tried, in front of the message.
func statusOf(err error) *status.Status {
	var wire interface{ GRPCStatus() *status.Status }
	if errors.As(err, &wire) {
		return wire.GRPCStatus()
	}
	return status.Convert(err)
}
