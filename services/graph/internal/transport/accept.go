package transport

import (
	"mime"
	"strings"
)

// The media types of an answer.
const (
	mediaGraphQL = "application/graphql-response+json"
	mediaJSON    = "application/json"
)

// form is what an answer looks like.
type form struct {
	media string
	// legacy is set for a client that asks for application/json by its name. It knows an answer of ours from another's
	// by the status 200 alone, and so gets that whenever its request was well formed. To everybody else the status tells
	// how the request fared.
	legacy bool
}

// negotiate returns the form of the answer to a request with these Accept headers: of what the client accepts that which
// it prefers. Between equals one that is named wins over one that a wildcard allows, and then the newer one; what only
// wildcards allow is JSON, and so is the answer to a client that says nothing, since it may know no other.
func negotiate(accept []string) (f form, ok bool) {
	ranges := mediaRanges(accept)
	if len(ranges) == 0 {
		return form{media: mediaJSON}, true
	}
	newer, older := best(ranges, mediaGraphQL), best(ranges, mediaJSON)
	switch {
	case newer.quality == 0 && older.quality == 0:
		return form{}, false
	case newer.quality > older.quality, newer.quality == older.quality && newer.specificity == named:
		return form{media: mediaGraphQL}, true
	default:
		return form{media: mediaJSON, legacy: older.specificity == named}, true
	}
}

// What a media range can say of a media type, from the least specific on.
const (
	nothing = iota
	anything
	sameType
	named
)

// mediaRange is one element of an Accept header.
type mediaRange struct {
	pattern string
	quality float64
}

// specificity tells how exactly the range describes a media type.
func (r mediaRange) specificity(media string) int {
	major, _, _ := strings.Cut(media, "/")
	switch r.pattern {
	case media:
		return named
	case major + "/*":
		return sameType
	case "*/*":
		return anything
	default:
		return nothing
	}
}

// preference is how much a client likes a media type, and how specifically it says so.
type preference struct {
	quality     float64
	specificity int
}

// best returns what the most specific of the ranges says of a media type. That a wildcard allows it counts for nothing
// when it is refused by name.
func best(ranges []mediaRange, media string) preference {
	var found preference
	for _, r := range ranges {
		switch specificity := r.specificity(media); {
		case specificity > found.specificity:
			found = preference{quality: r.quality, specificity: specificity}
		case specificity == found.specificity && specificity > nothing:
			found.quality = max(found.quality, r.quality)
		}
	}
	return found
}

// mediaRanges reads Accept headers. What is malformed, and what asks for another encoding than UTF-8, becomes a range that
// accepts nothing; headers that are empty have no range.
func mediaRanges(accept []string) []mediaRange {
	var ranges []mediaRange
	for _, header := range accept {
		for _, element := range splitList(header) {
			ranges = append(ranges, parseRange(element))
		}
	}
	return ranges
}

func parseRange(element string) mediaRange {
	pattern, options, err := mime.ParseMediaType(element)
	if err != nil {
		return mediaRange{}
	}
	if charset, ok := options["charset"]; ok && !strings.EqualFold(charset, "utf-8") {
		return mediaRange{}
	}
	quality := 1.0
	if weight, ok := options["q"]; ok {
		if quality, ok = parseWeight(weight); !ok {
			return mediaRange{}
		}
	}
	return mediaRange{pattern: pattern, quality: quality}
}

// parseWeight reads a quality as RFC 9110 writes it: 0 to 1, with at most three digits after the point.
func parseWeight(text string) (quality float64, ok bool) {
	whole, fraction, _ := strings.Cut(text, ".")
	if (whole != "0" && whole != "1") || len(fraction) > 3 || strings.Trim(fraction, "0123456789") != "" {
		return 0, false
	}
	thousandths := 0
	for _, digit := range (fraction + "000")[:3] {
		thousandths = 10*thousandths + int(digit-'0')
	}
	if whole == "1" {
		return 1, thousandths == 0
	}
	return float64(thousandths) / 1000, true
}

// splitList splits a header at the commas that are not within quotes, and drops what is empty.
func splitList(header string) []string {
	var elements []string
	quoted, start := false, 0
	add := func(element string) {
		if element = strings.Trim(element, " \t"); element != "" {
			elements = append(elements, element)
		}
	}
	for i := 0; i < len(header); i++ {
		switch c := header[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			i++
		case c == ',' && !quoted:
			add(header[start:i])
			start = i + 1
		}
	}
	add(header[start:])
	return elements
}
