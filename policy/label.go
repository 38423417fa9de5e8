package policy

// Label says what a session, or a value, may have been written by or tell. The zero value is text that only the person
// wrote and that is no secret.
type Label struct {
	World   bool // anybody may have written some of it
	Private bool // some of it is the person's own and must not leave unasked
}

// Join is the label of what was made of both. A label only ever goes up: whatever was joined, stays.
func (l Label) Join(o Label) Label {
	return Label{World: l.World || o.World, Private: l.Private || o.Private}
}
