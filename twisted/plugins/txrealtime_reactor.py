from twisted.application.reactors import Reactor

quickEPoll = Reactor("quickepoll", "txrealtime.reactor", "epoll(4) for many small messages (txrealtime).")
