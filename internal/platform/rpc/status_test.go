package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"chatapp.dev/internal/platform/errs"
)

func TestEveryKindHasACodeOfItsOwn(t *testing.T) {
	seen := map[codes.Code]errs.Kind{}
	for _, kind := range errs.Kinds() {
		code, ok := codeOf[kind]
		if !ok || code == codes.OK {
			t.Errorf("%v has no code", kind)
		}
		if other, ok := seen[code]; ok {
			t.Errorf("%v and %v have the code %v", kind, other, code)
		}
		seen[code] = kind
		if kindOfCode[code] != kind || kindOfName[kind.String()] != kind {
			t.Errorf("%v is not found by its code and name", kind)
		}
	}
}

// wantError fails unless a client got an error as it was sent.
func wantError(t *testing.T, err error, want errs.Error) {
	t.Helper()
	got, ok := err.(*errs.Error) //nolint:errorlint // The client is to return it bare.
	if !ok {
		t.Fatalf("the client got %T %v, want *errs.Error", err, err)
	}
	if got.Kind != want.Kind || got.Code != want.Code || got.Field != want.Field || got.Message != want.Message {
		t.Errorf("the client got %+v, want %+v", got, want)
	}
}

func TestErrorsCrossTheWireUnchangedButForTheirCause(t *testing.T) {
	const secret = "dial tcp 10.1.2.3:3306"
	cause := errors.New(secret)
	type test struct {
		name string
		sent error
		want errs.Error
	}
	var tests []test
	for _, kind := range errs.Kinds() {
		tests = append(
			tests,
			test{kind.String(), errs.New(kind, "some words"), errs.Error{Kind: kind, Message: "some words"}},
			test{
				kind.String() + " with a cause", fmt.Errorf("save: %w", errs.Wrap(kind, cause, "wörds")),
				errs.Error{Kind: kind, Message: "wörds"},
			},
		)
	}
	for _, code := range []errs.Code{
		errs.Required, errs.TooShort, errs.TooLong, errs.InvalidFormat, errs.InvalidCharacters, errs.OutOfRange,
		errs.Taken, errs.UnknownReference, errs.ClientIDReused, errs.InvalidCredentials,
	} {
		tests = append(tests, test{
			string(code), errs.Field(errs.Invalid, code, "messages[3].body", "body is bad"),
			errs.Error{Kind: errs.Invalid, Code: code, Field: "messages[3].body", Message: "body is bad"},
		})
	}
	unavailable := errs.Error{Kind: errs.Unavailable, Message: unavailableMessage}
	internal := errs.Error{Kind: errs.Internal, Message: internalMessage}
	tests = append(
		tests,
		test{
			"a code without a field", errs.Field(errs.Conflict, errs.Taken, "", "m"),
			errs.Error{Kind: errs.Conflict, Code: errs.Taken, Message: "m"},
		},
		test{
			"a field without a code", errs.Field(errs.Invalid, "", "f", "m"),
			errs.Error{Kind: errs.Invalid, Field: "f", Message: "m"},
		},
		test{"no message", &errs.Error{Kind: errs.NotFound}, errs.Error{Kind: errs.NotFound}},
		test{"a kind outside the set", errs.New(errs.Kind(99), "m"), errs.Error{Kind: errs.Internal, Message: "m"}},
		test{"unknown", cause, internal},
		test{"a status that is not ours", status.Error(codes.NotFound, secret), internal},
		test{"deadline", fmt.Errorf("%s: %w", secret, context.DeadlineExceeded), unavailable},
		test{"cancelled", fmt.Errorf("%s: %w", secret, context.Canceled), unavailable},
	)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := serveTest(t, ServerConfig{}, &testService{unary: func(context.Context) error { return tt.sent }})
			_, err := h.client(t).UnaryCall(t.Context(), &testpb.SimpleRequest{})
			wantError(t, err, tt.want)

			// A client of any kind, that sees all there is on the wire.
			_, err = testpb.NewTestServiceClient(h.bare(t)).UnaryCall(t.Context(), &testpb.SimpleRequest{})
			s := status.Convert(err)
			if wire := fmt.Sprint(s.Proto()); strings.Contains(wire, secret) {
				t.Errorf("the cause crossed the wire: %s", wire)
			}
			if s.Code() != codeOf[tt.want.Kind] {
				t.Errorf("the code is %v, want %v", s.Code(), codeOf[tt.want.Kind])
			}
			info, ok := s.Details()[0].(*errdetails.ErrorInfo)
			if !ok || info.GetDomain() != "chatapp.dev" || info.GetReason() != tt.want.Kind.String() ||
				info.GetMetadata()["code"] != string(tt.want.Code) || info.GetMetadata()["field"] != tt.want.Field {
				t.Errorf("the detail is %v", s.Details()[0])
			}
		})
	}
}

func TestStatusesThatAreNotOurs(t *testing.T) {
	withInfo := func(code codes.Code, info *errdetails.ErrorInfo) error {
		s, err := status.New(code, "text").WithDetails(info)
		if err != nil {
			t.Fatal(err)
		}
		return s.Err()
	}
	unavailable := errs.Error{Kind: errs.Unavailable, Message: unavailableMessage}
	internal := errs.Error{Kind: errs.Internal, Message: internalMessage}
	tests := []struct {
		name string
		err  error
		want errs.Error
	}{
		{"transport is down", status.Error(codes.Unavailable, "dial 10.0.0.1"), unavailable},
		{"deadline", status.Error(codes.DeadlineExceeded, "x"), unavailable},
		{"cancelled", status.Error(codes.Canceled, "x"), unavailable},
		{"message too large", status.Error(codes.ResourceExhausted, "x"), internal},
		{"unknown method", status.Error(codes.Unimplemented, "x"), internal},
		{"no status", io.ErrUnexpectedEOF, internal},
		{
			"a detail of another domain",
			withInfo(codes.NotFound, &errdetails.ErrorInfo{Domain: "example.com", Reason: "NOT_FOUND"}),
			internal,
		},
		{
			"a kind of a newer server",
			withInfo(codes.PermissionDenied, &errdetails.ErrorInfo{Domain: "chatapp.dev", Reason: "SUSPENDED"}),
			errs.Error{Kind: errs.Forbidden, Message: "text"},
		},
		{
			"a kind and a code of a newer server",
			withInfo(codes.Aborted, &errdetails.ErrorInfo{Domain: "chatapp.dev", Reason: "SUSPENDED"}),
			errs.Error{Kind: errs.Internal, Message: "text"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { wantError(t, fromStatus(tt.err), tt.want) })
	}
	if err := fromStatus(nil); err != nil {
		t.Errorf("success became %v", err)
	}
	if err := fromStatus(io.EOF); !errors.Is(err, io.EOF) {
		t.Errorf("the end of a stream became %v", err)
	}
}
