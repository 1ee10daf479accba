package messages

import (
	"testing"
	"time"
)

func TestSettingsThatAreWrong(t *testing.T) {
	good := Config{
		Redis: "redis://127.0.0.1:6379/0", Users: "users:9001", LogRetention: time.Hour, LogRetentionEvery: time.Minute,
	}
	if err := good.Validate(); err != nil {
		t.Errorf("good settings: %v", err)
	}
	for name, spoil := range map[string]func(*Config){
		"Redis":             func(c *Config) { c.Redis = "127.0.0.1:6379" },
		"Users":             func(c *Config) { c.Users = "users" },
		"Users' port":       func(c *Config) { c.Users = "users:" },
		"LogRetention":      func(c *Config) { c.LogRetention = 0 },
		"LogRetentionEvery": func(c *Config) { c.LogRetentionEvery = -time.Second },
	} {
		c := good
		spoil(&c)
		if err := c.Validate(); err == nil {
			t.Errorf("%s: %+v was taken", name, c)
		}
	}
}
