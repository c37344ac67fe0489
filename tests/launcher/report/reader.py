"""What a browser sees of a page."""

from html.parser import HTMLParser


class Reader(HTMLParser):
    """Attributes: tags, attributes and text, in the order of the page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data
