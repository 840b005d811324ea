kept = {
  plain = <<END
one
  two
END
  closing_inset = <<END
    one
  END
  value = <<END
  one
  ${mid}
END
  near = <<END
  NEAR END
END
}
flush = {
  all = <<-END
    one
      two
    three
  END
  least = <<-END
    one
  two
  END
  value = <<-END
    one
      ${mid}
  END
  value_inset = <<-END
    one
  ${inset}
  END
  tab = <<-END
	one
  two
  END
  blank = <<-END
    one

    two
  END
}
