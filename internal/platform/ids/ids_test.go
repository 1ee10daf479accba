package ids

import (
	"database/sql"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/uuid"
)

const sample = "0190a5c8-7b1e-7c3a-9f00-0123456789ab"

func TestNewIsVersion7AndAscends(t *testing.T) {
	last := New()
	for range 10_000 {
		next := New()
		if last.Compare(next) >= 0 {
			t.Fatalf("%s came after %s", next, last)
		}
		if v := uuid.UUID(next).Version(); v != 7 {
			t.Fatalf("%s has version %d, want 7", next, v)
		}
		last = next
	}
}

func TestParse(t *testing.T) {
	tests := []struct {
		name string
		in   string
		want string // Empty when it must be refused.
	}{
		{"canonical", sample, sample},
		{"upper case", strings.ToUpper(sample), sample},
		{"version 4", "6ba7b810-9dad-41d1-80b4-00c04fd430c8", "6ba7b810-9dad-41d1-80b4-00c04fd430c8"},
		{"empty", "", ""},
		{"no hyphens", strings.ReplaceAll(sample, "-", ""), ""},
		{"braces", "{" + sample + "}", ""},
		{"urn", "urn:uuid:" + sample, ""},
		{"not hexadecimal", strings.Replace(sample, "a", "g", 1), ""},
		{"hyphens elsewhere", "0190a5c87-b1e-7c3a-9f00-0123456789ab", ""},
		{"trailing newline", sample + "\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse(tt.in)
			if tt.want == "" {
				if err == nil || !got.IsZero() {
					t.Fatalf("Parse(%q) = %s, %v; want a refusal", tt.in, got, err)
				}
				return
			}
			if err != nil || got.String() != tt.want {
				t.Fatalf("Parse(%q) = %s, %v; want %s", tt.in, got, err, tt.want)
			}
		})
	}
}

func TestBytesRoundTrip(t *testing.T) {
	id := New()
	got, err := FromBytes(id.Bytes())
	if err != nil || got != id {
		t.Fatalf("FromBytes(Bytes()) = %s, %v; want %s", got, err, id)
	}
	for _, n := range []int{0, 15, 17} {
		if _, err := FromBytes(make([]byte, n)); err == nil {
			t.Errorf("FromBytes took %d bytes", n)
		}
	}
	id.Bytes()[0] ^= 0xff
	if got != id {
		t.Error("Bytes lets a caller change the id")
	}
}

func TestSQLRoundTrip(t *testing.T) {
	id := New()
	value, err := id.Value()
	if err != nil {
		t.Fatal(err)
	}
	if b, ok := value.([]byte); !ok || len(b) != Size {
		t.Fatalf("Value() = %T, want %d raw bytes", value, Size)
	}
	var got ID
	if err := got.Scan(value); err != nil || got != id {
		t.Fatalf("Scan(Value()) = %s, %v; want %s", got, err, id)
	}
	for _, src := range []any{nil, id.String(), []byte(id.String()), []byte{}, int64(1)} {
		if err := got.Scan(src); err == nil {
			t.Errorf("Scan took %T %v", src, src)
		}
	}
	var nullable sql.Null[ID]
	if err := nullable.Scan(nil); err != nil || nullable.Valid {
		t.Errorf("a NULL scans into %+v, %v", nullable, err)
	}
	if err := nullable.Scan(value); err != nil || nullable.V != id {
		t.Errorf("a value scans into %+v, %v", nullable, err)
	}
}

func TestJSONIsTheCanonicalText(t *testing.T) {
	id, err := Parse(sample)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(id)
	if err != nil || string(text) != `"`+sample+`"` {
		t.Fatalf("json.Marshal = %s, %v", text, err)
	}
	var got ID
	if err := json.Unmarshal(text, &got); err != nil || got != id {
		t.Fatalf("json.Unmarshal = %s, %v", got, err)
	}
	if err := json.Unmarshal([]byte(`"x"`), &got); err == nil {
		t.Error("json.Unmarshal took a malformed id")
	}
}

func TestZeroAndCompare(t *testing.T) {
	var zero ID
	one := ID{Size - 1: 1}
	if !zero.IsZero() || one.IsZero() {
		t.Error("only the zero id is zero")
	}
	if zero.Compare(one) != -1 || one.Compare(zero) != 1 || one.Compare(one) != 0 {
		t.Error("ids are not ordered by their bytes")
	}
}
