package rpc

import (
	"errors"
	"fmt"
	"strings"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"chatapp.dev/internal/platform/errs"
)

// validateRequest holds a request to the rules in its protobuf definition and returns the first violation as
// errs.Invalid. A message without rules passes. All servers of a process share the library's one validator, and so the
// rules that it compiled.
func validateRequest(request any) error {
	message, ok := request.(proto.Message)
	if !ok {
		return fmt.Errorf("validate: %T is no protobuf message", request)
	}
	err := protovalidate.Validate(message, protovalidate.WithFailFast())
	if err == nil {
		return nil
	}
	var broken *protovalidate.ValidationError
	if !errors.As(err, &broken) || len(broken.Violations) == 0 {
		return fmt.Errorf("validate %s: %w", message.ProtoReflect().Descriptor().FullName(), err)
	}
	return invalid(broken.Violations[0])
}

// invalid words a violation as an error about the field.
func invalid(v *protovalidate.Violation) *errs.Error {
	field := protovalidate.FieldPathString(v.Proto.GetField())
	text := v.Proto.GetMessage()
	if text == "" {
		text = "breaks the rule " + v.Proto.GetRuleId()
	}
	if field != "" {
		// The library's texts are predicates, but some have a subject, which is the field here.
		for _, subject := range []string{"value ", "repeated value ", "map "} {
			text = strings.TrimPrefix(text, subject)
		}
		text = field + " " + text
	}
	return errs.Field(errs.Invalid, codeOfRule(v.Proto.GetRuleId(), v.FieldValue), field, text)
}

// codeOfRule names the rule in our terms. Rule ids are the path of the rule, such as string.min_len, int32.gte_lte
// or string.uuid_empty.
func codeOfRule(id string, value protoreflect.Value) errs.Code {
	rule := id[strings.LastIndexByte(id, '.')+1:]
	switch rule {
	case "required":
		return errs.Required
	case "len", "len_bytes", "min_len", "min_bytes", "min_items", "min_pairs":
		switch {
		case isEmpty(value):
			return errs.Required
		case strings.HasPrefix(rule, "min_"):
			return errs.TooShort
		}
		return errs.InvalidFormat
	case "max_len", "max_bytes", "max_items", "max_pairs":
		return errs.TooLong
	}
	if strings.HasSuffix(rule, "_empty") {
		return errs.Required
	}
	// gt, gte, lt, lte, lt_now and so on, and pairs of them: gt_lt, gte_lte_exclusive.
	for _, bound := range []string{"gt", "gte", "lt", "lte"} {
		if rule == bound || strings.HasPrefix(rule, bound+"_") {
			return errs.OutOfRange
		}
	}
	return errs.InvalidFormat
}

// isEmpty says whether a string, bytes, list or map has nothing in it.
func isEmpty(value protoreflect.Value) bool {
	switch v := value.Interface().(type) {
	case string:
		return v == ""
	case []byte:
		return len(v) == 0
	case protoreflect.List:
		return v.Len() == 0
	case protoreflect.Map:
		return v.Len() == 0
	}
	return false
}
