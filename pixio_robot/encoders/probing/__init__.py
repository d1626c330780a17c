"""What frozen features tell: linear maps in closed form, votes of neighbours, and labelled images to ask about."""
