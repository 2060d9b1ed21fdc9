"""A small shop's website with the chat, under the strictest policy that a site can have."""
