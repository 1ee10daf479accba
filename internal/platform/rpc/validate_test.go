package rpc

import (
	"context"
	"testing"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/identity"
)

// requestType returns a message type made of a field definition in protobuf's text format, whose rules are a text of
// buf.validate.FieldRules, and a field "items" of the type itself, repeated.
func requestType(t *testing.T, field, rules string) protoreflect.MessageDescriptor {
	t.Helper()
	ruled := &descriptorpb.FieldDescriptorProto{}
	if err := prototext.Unmarshal([]byte(`number: 1 `+field), ruled); err != nil {
		t.Fatal(err)
	}
	parsed := &validate.FieldRules{}
	if err := prototext.Unmarshal([]byte(rules), parsed); err != nil {
		t.Fatal(err)
	}
	ruled.Options = &descriptorpb.FieldOptions{}
	proto.SetExtension(ruled.Options, validate.E_Field, parsed)
	items := &descriptorpb.FieldDescriptorProto{}
	err := prototext.Unmarshal(
		[]byte(`name: "items" number: 2 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: ".chatapp.test.Request"`), items)
	if err != nil {
		t.Fatal(err)
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name:    proto.String("chatapp/test/request.proto"),
		Package: proto.String("chatapp.test"),
		Syntax:  proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{
			Name: proto.String("Request"), Field: []*descriptorpb.FieldDescriptorProto{ruled, items},
		}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return file.Messages().ByName("Request")
}

// newRequest returns a message of a type with the content of a text.
func newRequest(t *testing.T, desc protoreflect.MessageDescriptor, text string) *dynamicpb.Message {
	t.Helper()
	message := dynamicpb.NewMessage(desc)
	if err := prototext.Unmarshal([]byte(text), message); err != nil {
		t.Fatal(err)
	}
	return message
}

func TestValidate(t *testing.T) {
	const (
		str  = `name: "user_name" type: TYPE_STRING label: LABEL_OPTIONAL`
		raw  = `name: "user_id" type: TYPE_BYTES label: LABEL_OPTIONAL`
		num  = `name: "page_size" type: TYPE_INT32 label: LABEL_OPTIONAL`
		strs = `name: "user_names" type: TYPE_STRING label: LABEL_REPEATED`
		uuid = `string { uuid: true }`
	)
	tests := []struct {
		name, field, rules, request string
		code                        errs.Code
		path, message               string // Empty when the request keeps the rules.
	}{
		{"uuid kept", str, uuid, `user_name: "6ba7b810-9dad-41d1-80b4-00c04fd430c8"`, "", "", ""},
		{"uuid", str, uuid, `user_name: "x"`, errs.InvalidFormat, "user_name", "user_name must be a valid UUID"},
		{"uuid empty", str, uuid, ``, errs.Required, "user_name", "user_name is empty, which is not a valid UUID"},
		{"required", str, `required: true`, ``, errs.Required, "user_name", "user_name is required"},
		{
			"pattern", str, `string { pattern: "^[a-z]+$" }`, `user_name: "A"`, errs.InvalidFormat, "user_name",
			"user_name does not match regex pattern `^[a-z]+$`",
		},
		{
			"min_len", str, `string { min_len: 3 }`, `user_name: "ab"`,
			errs.TooShort, "user_name", "user_name must be at least 3 characters",
		},
		{
			"min_len empty", str, `string { min_len: 3 }`, ``,
			errs.Required, "user_name", "user_name must be at least 3 characters",
		},
		{
			"max_len", str, `string { max_len: 1 }`, `user_name: "ab"`,
			errs.TooLong, "user_name", "user_name must be at most 1 characters",
		},
		{
			"max_bytes", str, `string { max_bytes: 1 }`, `user_name: "é"`,
			errs.TooLong, "user_name", "user_name must be at most 1 bytes",
		},
		{
			"in", str, `string { in: ["a"] }`, `user_name: "b"`,
			errs.InvalidFormat, "user_name", "user_name must be in list [a]",
		},
		{
			"len", raw, `bytes { len: 16 }`, `user_id: "abc"`,
			errs.InvalidFormat, "user_id", "user_id must be 16 bytes",
		},
		{"len empty", raw, `bytes { len: 16 }`, ``, errs.Required, "user_id", "user_id must be 16 bytes"},
		{"bytes kept", raw, `bytes { len: 2 }`, `user_id: "ab"`, "", "", ""},
		{
			"gt", num, `int32 { gt: 0 }`, `page_size: 0`,
			errs.OutOfRange, "page_size", "page_size must be greater than 0",
		},
		{
			"lte", num, `int32 { lte: 9 }`, `page_size: 10`,
			errs.OutOfRange, "page_size", "page_size must be less than or equal to 9",
		},
		{
			"between", num, `int32 { gte: 1 lte: 9 }`, `page_size: 10`, errs.OutOfRange, "page_size",
			"page_size must be greater than or equal to 1 and less than or equal to 9",
		},
		{
			"outside", num, `int32 { gt: 9 lt: 1 }`, `page_size: 5`, errs.OutOfRange, "page_size",
			"page_size must be greater than 9 or less than 1",
		},
		{
			"min_items", strs, `repeated { min_items: 2 }`, `user_names: "a"`,
			errs.TooShort, "user_names", "user_names must contain at least 2 item(s)",
		},
		{
			"min_items empty", strs, `repeated { min_items: 2 }`, ``,
			errs.Required, "user_names", "user_names must contain at least 2 item(s)",
		},
		{
			"max_items", strs, `repeated { max_items: 1 }`, `user_names: ["a", "b"]`, errs.TooLong, "user_names",
			"user_names must contain no more than 1 item(s)",
		},
		{
			"unique", strs, `repeated { unique: true }`, `user_names: ["a", "a"]`, errs.InvalidFormat, "user_names",
			"user_names must contain unique items",
		},
		{
			"item", strs, `repeated { items { string { max_len: 1 } } }`, `user_names: ["a", "bb"]`, errs.TooLong, "user_names[1]",
			"user_names[1] must be at most 1 characters",
		},
		{
			"nested", str, `string { max_len: 1 }`, `items { } items { items { user_name: "bb" } }`, errs.TooLong,
			"items[1].items[0].user_name", "items[1].items[0].user_name must be at most 1 characters",
		},
		{
			"a rule of our own", num, `cel { id: "page_size.even" message: "must be even" expression: "this % 2 == 0" }`, `page_size: 3`,
			errs.InvalidFormat, "page_size", "page_size must be even",
		},
		{
			"a rule of our own without a text", num, `cel { id: "page_size.even" expression: "this % 2 == 0" }`, `page_size: 3`,
			errs.InvalidFormat, "page_size", `page_size "this % 2 == 0" returned false`,
		},
		{"no rule", str, ``, `user_name: "anything"`, "", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := validateRequest(newRequest(t, requestType(t, tt.field, tt.rules), tt.request))
			if tt.message == "" {
				if err != nil {
					t.Fatalf("a request that keeps the rules gave %v", err)
				}
				return
			}
			wantError(t, err, errs.Error{Kind: errs.Invalid, Code: tt.code, Field: tt.path, Message: tt.message})
		})
	}
}

func TestRulesThatDoNotCompileAreOurFault(t *testing.T) {
	desc := requestType(t, `name: "user_name" type: TYPE_STRING label: LABEL_OPTIONAL`, `cel { id: "bad" expression: "this +" }`)
	if err := validateRequest(newRequest(t, desc, ``)); err == nil || errs.KindOf(err) != errs.Internal {
		t.Errorf("the error is %v, want Internal", err)
	}
	if err := validateRequest("no message"); errs.KindOf(err) != errs.Internal {
		t.Errorf("the error is %v, want Internal", err)
	}
}

// TestRequestsAreValidated calls a service with rules over the network.
func TestRequestsAreValidated(t *testing.T) {
	desc := requestType(t, `name: "user_name" type: TYPE_STRING label: LABEL_OPTIONAL`, `string { min_len: 3 }`)
	const method, streamMethod = "/chatapp.test.Rules/Check", "/chatapp.test.Rules/Upload"
	reached := 0
	rules := &grpc.ServiceDesc{
		ServiceName: "chatapp.test.Rules",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "Check",
			Handler: func(
				srv any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor,
			) (any, error) {
				request := dynamicpb.NewMessage(desc)
				if err := decode(request); err != nil {
					return nil, err
				}
				return intercept(ctx, request, &grpc.UnaryServerInfo{Server: srv, FullMethod: method},
					func(context.Context, any) (any, error) {
						reached++
						return &emptypb.Empty{}, nil
					})
			},
		}},
		Streams: []grpc.StreamDesc{{
			StreamName:    "Upload",
			ClientStreams: true,
			Handler: func(_ any, stream grpc.ServerStream) error {
				request := dynamicpb.NewMessage(desc)
				if err := stream.RecvMsg(request); err != nil {
					return err
				}
				reached++
				return stream.SendMsg(&emptypb.Empty{})
			},
		}},
	}
	h := serve(t, ServerConfig{}, func(s *Server) { s.RegisterService(rules, nil) })
	conn := dial(t, h.addr)
	call := func(ctx context.Context, request string) error {
		return conn.Invoke(ctx, method, newRequest(t, desc, request), &emptypb.Empty{})
	}

	upload := func(ctx context.Context, request string) error {
		stream, err := conn.NewStream(ctx, &rules.Streams[0], streamMethod)
		if err != nil {
			return err
		}
		if err := stream.SendMsg(newRequest(t, desc, request)); err != nil {
			return err
		}
		return stream.RecvMsg(&emptypb.Empty{})
	}

	ctx, _ := h.caller(t)
	if err := call(ctx, `user_name: "abc"`); err != nil || reached != 1 {
		t.Fatalf("a good request gave %v and reached its handler %d times", err, reached)
	}
	wantError(t, call(ctx, `user_name: "ab"`), errs.Error{
		Kind: errs.Invalid, Code: errs.TooShort, Field: "user_name", Message: "user_name must be at least 3 characters",
	})
	// Who is not signed in learns nothing about the rules.
	if err := call(identity.With(t.Context(), identity.Identity{}), ``); errs.KindOf(err) != errs.Unauthenticated {
		t.Errorf("a bad request of a stranger gave %v, want Unauthenticated", err)
	}
	if reached != 1 {
		t.Errorf("bad requests reached the handler %d times", reached-1)
	}

	if err := upload(ctx, `user_name: "abc"`); err != nil || reached != 2 {
		t.Fatalf("a good stream gave %v and reached its handler's end %d times", err, reached-1)
	}
	wantError(t, upload(ctx, `user_name: "ab"`), errs.Error{
		Kind: errs.Invalid, Code: errs.TooShort, Field: "user_name", Message: "user_name must be at least 3 characters",
	})
}
