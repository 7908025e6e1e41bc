"""The page for people: server-rendered, without a build step or a request to anywhere else.

Knows the routes, whose functions it calls. Must never know the database: what it shows is what the API
answers."""
