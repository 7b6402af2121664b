"""Operations on campaigns as a whole: list, stop, pause, show, extend."""
