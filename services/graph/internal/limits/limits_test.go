package limits

import "testing"

func TestLimitsThatLetNothingThrough(t *testing.T) {
	valid := Config{
		BodyBytes: 1024, CompressionRatio: 1, Tokens: 1, Depth: 1, Fields: 1, Aliases: 0, RootFields: 1, Mutations: 1, Complexity: 1,
	}
	if err := valid.Validate(); err != nil {
		t.Errorf("the least: %v", err)
	}
	for name, limit := range map[string]func(*Config) *int{
		"body":        func(c *Config) *int { return &c.BodyBytes },
		"ratio":       func(c *Config) *int { return &c.CompressionRatio },
		"tokens":      func(c *Config) *int { return &c.Tokens },
		"depth":       func(c *Config) *int { return &c.Depth },
		"fields":      func(c *Config) *int { return &c.Fields },
		"aliases":     func(c *Config) *int { return &c.Aliases },
		"root fields": func(c *Config) *int { return &c.RootFields },
		"mutations":   func(c *Config) *int { return &c.Mutations },
		"complexity":  func(c *Config) *int { return &c.Complexity },
	} {
		cfg := valid
		*limit(&cfg)--
		if err := cfg.Validate(); err == nil {
			t.Errorf("%s: less is accepted", name)
		}
	}
}
