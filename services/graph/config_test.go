package graph

import (
	"testing"
	"time"
)

func TestSettingsThatAreWrong(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*Config)
		ok     bool
	}{
		"none":                  {func(*Config) {}, true},
		"origins":               {func(c *Config) { c.AllowedOrigins = []string{"https://a.example", "http://localhost:3000"} }, true},
		"origin with a path":    {func(c *Config) { c.AllowedOrigins = []string{"https://a.example/"} }, false},
		"every origin":          {func(c *Config) { c.AllowedOrigins = []string{"*"} }, false},
		"origin without scheme": {func(c *Config) { c.AllowedOrigins = []string{"a.example"} }, false},
		"page of nothing":       {func(c *Config) { c.PageSize = 0 }, false},
		"page too long":         {func(c *Config) { c.PageSize = 101 }, false},
		"users without port":    {func(c *Config) { c.Users = "users" }, false},
		"messages without port": {func(c *Config) { c.Messages = "messages" }, false},
		"redis that is no URL":  {func(c *Config) { c.Redis = "localhost:6379" }, false},
		"proxies":               {func(c *Config) { c.TrustedProxies = []string{"10.0.0.0/8", "::1"} }, true},
		"proxy that is a name":  {func(c *Config) { c.TrustedProxies = []string{"ingress"} }, false},
		"trusted documents":     {func(c *Config) { c.Persisted.TrustedDocuments = "testdata/persisted-documents.json" }, true},
		"of Apollo":             {func(c *Config) { c.Persisted.TrustedDocuments = "testdata/persisted-query-manifest.json" }, true},
		"trusted and not there": {func(c *Config) { c.Persisted.TrustedDocuments = "testdata/nothing.json" }, false},
		"trusted and not valid": {func(c *Config) { c.Persisted.TrustedDocuments = "testdata/invalid-documents.json" }, false},
		"negative drain":        {func(c *Config) { c.DrainDelay = -time.Second }, false},
		"negative shutdown":     {func(c *Config) { c.ShutdownTimeout = -time.Second }, false},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := defaults(t)
			test.change(&cfg)
			if err := cfg.Validate(); (err == nil) != test.ok {
				t.Errorf("Validate: %v", err)
			}
		})
	}
}
