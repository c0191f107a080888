"""Everything that knows the exchange: signing, sending, what an answer means, its clock.

The way of one poll: ``client`` asks ``request`` for signed bytes, ``transport`` carries them,
``response`` says which error an answer is, ``payload`` reads its JSON, ``normalise`` its amounts.
"""
