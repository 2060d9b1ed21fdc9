"""The console: server-rendered pages for people, below ``/console``.

Every page works without script. A page is one module in ``pages/`` with ``routes``, named in
``routes.PAGES``, and one template; ``page.render`` draws it and ``guard`` says who is looking.
"""
