CLASSIFIERS = ()


def attempt_classifier(name, say): ...
