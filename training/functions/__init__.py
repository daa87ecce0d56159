"""Any function of tensors, published with its derivatives: a module or a plain function in, a
``kind: "function"`` artifact out.

``publication`` says what is published, ``rowwise`` differentiates, ``eager`` is the reference that
graphs are checked against, ``refusal`` the reasons for not publishing, ``publisher`` the job.
"""
