package policy

import "github.com/cedar-policy/cedar-go"

// Cedar shows tests what a request becomes.
func (r Request) Cedar(p Profile) (cedar.Request, cedar.EntityMap) { return r.cedar(p) }
